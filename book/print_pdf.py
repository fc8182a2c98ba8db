"""Print the book as one PDF: `make pdf`, which builds all pages as one first.

python book/print_pdf.py _build/singlehtml/book/intro.html _build/ncbook.pdf
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PAPER = {"format": "A4", "margin": dict.fromkeys(("top", "bottom", "left", "right"), "16mm")}
NUMBERED = (
    '<div style="width: 100%; font-size: 8px; text-align: center"><span class="pageNumber"></span>'
    "</div>"
)
MINUTES = 60_000  # in milliseconds: MathJax sets some thousand formulas


def main(built: Path, pdf: Path) -> None:
    chromium = chromium_here()
    # The page names its style sheets as if it lay at the top, wherever the book's first page lies.
    page_at_top = built.parents[1] / "all.html"
    shutil.copyfile(built, page_at_top)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light", device_scale_factor=2)
        page.set_default_timeout(10 * MINUTES)
        page.goto(page_at_top.resolve().as_uri())
        finish(page)
        page.pdf(
            path=pdf,
            **PAPER,
            outline=True,
            tagged=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=NUMBERED,
        )
        browser.close()


def finish(page: Page) -> None:
    """Open what is folded, but for code, and wait for the formulas; fail if there are none, as a
    page without style has none either."""
    page.evaluate(
        "document.querySelectorAll('main details:not(.hide)').forEach(d => d.open = true)"
    )
    page.wait_for_function("window.MathJax?.startup?.promise")
    page.evaluate("MathJax.startup.promise")
    if not page.locator("mjx-container").count():
        raise SystemExit("no formula was set: MathJax or the style sheets were not found")


def chromium_here() -> str:
    """The browser's path: ``CHROMIUM`` if it is set, else Debian's name or the others'."""
    names = [os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        tried = ", ".join(name for name in names if name)
        raise SystemExit(f"no Chromium (tried {tried}): name one, CHROMIUM=... make pdf")
    return found


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
