"""The explorer in a real JupyterLab, in a real browser: controls that change plots, and a training
that moves and stops."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from conftest import SECONDS
from test_makefile import ROOT, changes, clone_of_the_tree, make_lab, needs_git

from ncbook import store, sweep

SIZE = {"width": 1400, "height": 1000}
# JupyterLab asks a new user whether it may fetch news: nothing here leaves this machine.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false"},
    "@jupyterlab/docmanager-extension:plugin": {"autosaveInterval": 5},
}
SERVER = {"ip": "127.0.0.1", "token": "", "open_browser": False, "port_retries": 0}
CONTRAST = Path(__file__).with_name("contrast.js")
LAB = {"check_for_updates_class": "jupyterlab.NeverCheckForUpdate"}

pytestmark = [pytest.mark.slow, needs_git]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Adam and AdamW, 2 momenta x 2 decays, 6 epochs of 200 digits."""
    folder = tmp_path_factory.mktemp("results")
    shared = dict(train_size=200, batch_size=20, epochs=6)
    configs = [
        config
        for name in ("adam", "adamw")
        for config in sweep.grid(name, [0.01], [0.0, 0.9], [0.0, 0.05], **shared)
    ]
    sweep.run(configs, folder, workers=1, progress=False)
    return folder


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, process, log):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
        time.sleep(0.5)
    raise AssertionError(f"no JupyterLab after {SECONDS} s: {log.read_text()[-2000:]}")


def own_settings(folder, port):
    """Folders for a JupyterLab that knows nothing of its user's settings, and asks nobody."""
    own = {f"JUPYTER_{kind}_DIR": folder / kind for kind in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{kind}_DIR": folder / kind for kind in ("SETTINGS", "WORKSPACES")}
    files = {
        "CONFIG/jupyter_lab_config.json": {"ServerApp": SERVER | {"port": port}, "LabApp": LAB}
    }
    for name, content in SETTINGS.items():
        files[f"SETTINGS/{name.replace(':', '/')}.jupyterlab-settings"] = content
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return {name: str(path) for name, path in own.items()} | {"IPYTHONDIR": str(folder / "ipython")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return clone_of_the_tree(tmp_path_factory.mktemp("lab") / "clone")


@pytest.fixture(scope="module")
def lab(browser, results, clone):
    """The address of the JupyterLab that ``make lab`` starts."""
    port, log = free_port(), clone.parent / "log"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"NCBOOK_RESULTS": str(results), "PYTHONPATH": path}
    environment |= own_settings(clone.parent, port)
    environment.pop("NCBOOK_STATIC", None)
    options = dict(cwd=clone, env=environment, stderr=subprocess.STDOUT, start_new_session=True)
    with log.open("w") as file:
        process = subprocess.Popen(make_lab(clone), stdout=file, **options)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/api", process, log)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # with which it ends its kernels, too
        process.wait(SECONDS)


@pytest.fixture(scope="module")
def page(lab, open_page):
    """The notebook in a browser. Nobody presses Run: the panel is there."""
    page = open_page(viewport=SIZE)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.asked, page.errors = asked, errors
    page.goto(f"{lab}/lab/tree/explorer.ipynb?reset")
    page.locator("button[title^='weight decay']").first.wait_for()
    return page


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where the screenshots go: NCBOOK_SCREENSHOTS, else a temporary folder."""
    return Path(os.environ.get("NCBOOK_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))


def picture(page):
    """The plot that is seen, or None while there is none."""
    seen = page.locator("img.ncbook-picture").locator("visible=true")
    return seen.first.get_attribute("src") if seen.count() else None


def wait_until(page, what, condition):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{what}: not after {SECONDS} s")


def changes_picture(page, act):
    before = picture(page)
    assert before
    act()
    wait_until(page, "another picture", lambda: picture(page) not in (None, before))


def tab(page, name):
    page.get_by_role("tab", name=name, exact=True).click()


def choice(page, label):
    return page.get_by_label(label, exact=True).locator("visible=true").first


def run_all(page):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator('[data-command="runmenu:run-all"]').click()


def test_the_first_view_is_the_map_with_its_title(page, pictures, results):
    heading = page.get_by_role("heading", name="Which optimizer makes a network collapse?")
    wait_until(page, "the top", lambda: heading.bounding_box()["y"] > 0)
    scale = page.locator(".ncbook-scale")
    box = scale.bounding_box()
    assert box["y"] + box["height"] < SIZE["height"]  # nothing to scroll for
    run = store.load_runs(results, optimizer="adam").iloc[-1]
    place = f"weight decay {run['weight_decay']:g}, momentum {run['momentum']:g}:"
    cells = page.locator(f'button[title^="{place}"]')
    assert cells.count() == 2  # Adam's and AdamW's
    titles = page.locator(".ncbook-explorer .widget-dropdown label span[title]")
    assert titles.locator("visible=true").count() >= 8  # what the mouse is told of the controls
    page.screenshot(path=pictures / "map.png")
    page.set_viewport_size({"width": 1100, "height": 700})
    wait_until(page, "side by side", lambda: cells.nth(1).bounding_box()["x"] < 1100)
    heights = {cell.bounding_box()["y"] for cell in cells.all()}
    assert len(heights) == 1
    page.set_viewport_size(SIZE)


def test_a_cell_of_the_map_opens_its_epochs_and_controls_change_them(page, pictures, results):
    run = store.load_runs(results, optimizer="adam").iloc[-1]
    place = f"weight decay {run['weight_decay']:g}, momentum {run['momentum']:g}:"
    page.locator(f'button[title^="{place}"]').first.click()
    page.get_by_role("tab", name="Over the epochs", exact=True, selected=True).wait_for()
    wait_until(page, "a picture", lambda: picture(page))
    shown = choice(page, "λ").evaluate("e => e.selectedOptions[0].text")
    assert shown == f"{run['weight_decay']:g}"
    changes_picture(page, lambda: choice(page, "A").select_option("AdamW"))
    changes_picture(page, lambda: choice(page, "λ").select_option("0"))
    page.screenshot(path=pictures / "curves.png")


def test_a_box_drawn_in_the_plot_selects_rows(page, pictures):
    tab(page, "All runs")
    plot = page.locator(".vega-embed svg.marks, .vega-embed canvas.marks").first
    plot.wait_for()
    page.get_by_text("Of 8 runs:").wait_for()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 100, steps=4)
    page.mouse.up()
    wait_until(page, "fewer runs", lambda: page.get_by_text("Of 8 runs:").count() == 0)
    page.screenshot(path=pictures / "table.png")


def test_training_moves_and_stops(page, pictures):
    tab(page, "Train it now")
    start, stop = (page.locator("button:visible", has_text=name) for name in ("Start", "Stop"))
    assert not stop.is_enabled()
    start.click()
    wait_until(page, "a first picture", lambda: picture(page))
    changes_picture(page, lambda: None)
    assert not start.is_enabled()
    page.screenshot(path=pictures / "training.png")
    stop.click()
    page.get_by_text("Stopped after").wait_for()
    assert start.is_enabled()
    page.screenshot(path=pictures / "stopped.png")


def test_the_theorems_follow_their_sliders(page, pictures):
    tab(page, "Theory")
    shown = page.locator("figure.ncbook-live[data-ready]").locator("visible=true")
    wait_until(page, "two live figures", lambda: shown.count() == 2)
    for figure in shown.all():
        curve = figure.locator("path.curve").last
        before = curve.get_attribute("d")
        figure.get_by_role("slider").first.press("ArrowRight")
        assert curve.get_attribute("d") != before
    page.screenshot(path=pictures / "theory.png")


def test_in_the_dark_every_tab_can_be_read(page, pictures):
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-item", has_text="Theme").first.hover()
    page.locator(".lm-Menu-itemLabel", has_text=re.compile("^JupyterLab Dark$")).click()
    dark = page.locator("body[data-jp-theme-light=false]")
    wait_until(page, "dark", dark.count)
    panel = page.locator(".ncbook-explorer .widget-tab-contents").first
    for name in ("Map", "Over the epochs", "All runs", "Train it now", "Theory"):
        tab(page, name)
        page.wait_for_timeout(500)  # transitions of colours
        assert panel.evaluate(CONTRAST.read_text()) == []
        page.screenshot(path=pictures / f"dark {name}.png")


def test_a_restarted_kernel_and_one_that_was_shut_down_are_said(page, pictures):
    panel = page.locator(".ncbook-explorer")
    told = "e => getComputedStyle(e, '::before').content"
    assert panel.evaluate(told) == "none"
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator('[data-command="kernelmenu:restart"]').click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    wait_until(page, "a line", lambda: "Run all cells" in panel.evaluate(told))
    run_all(page)
    wait_until(page, "the panel", lambda: panel.count() and panel.evaluate(told) == "none")
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.locator('[data-command="kernelmenu:shutdown"]').click()
    wait_until(page, "a line", lambda: "Run all cells" in panel.evaluate(told))
    page.screenshot(path=pictures / "dead.png")


def many(results, folder):
    """50,000 runs: those of a store under other names and seeds."""
    runs = store.load_runs(results)
    times = range(-(-50_000 // len(runs)))
    copies = [runs.assign(run_id=runs["run_id"].str[:-4] + f"{n:04x}", seed=n) for n in times]
    store.write(folder, pd.concat(copies).to_dict("records"), [])


def foreign(_, folder):
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "theirs.parquet").write_bytes(b"PAR1 of another program")
    pd.DataFrame({"loss": [0.5]}).to_parquet(folder / "runs" / "other.parquet")


OTHER_STORES = {
    "empty": (lambda _, folder: folder.mkdir(), "There are no runs in"),
    "foreign": (foreign, "theirs.parquet: "),
    "none": (lambda *_: None, "is not there"),
    "large": (many, "50,000 runs in"),
}


@pytest.mark.parametrize("case", OTHER_STORES)
@pytest.mark.parametrize("size", [(1400, 900), (1100, 700)], ids=str)
def test_other_stores_can_be_explored(
    lab, open_page, clone, results, tmp_path, case, size, pictures
):
    make, words = OTHER_STORES[case]
    make(results, tmp_path / "store")
    content = (clone / "notebooks" / "explorer.ipynb").read_text()
    assert content.count("results = None") == 1
    copy = clone / "lab" / f"{case} {size[0]}" / "explorer.ipynb"
    copy.parent.mkdir()
    copy.write_text(content.replace("results = None", f"results = '{tmp_path / 'store'}'"))
    page = open_page(viewport=dict(zip(("width", "height"), size, strict=True)))
    page.goto(f"{lab}/lab/tree/{copy.parent.name}/explorer.ipynb?reset")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    run_all(page)
    page.locator(".ncbook-explorer", has_text=words).wait_for()
    if case == "large":
        tab(page, "Over the epochs")
        wait_until(page, "a picture", lambda: picture(page))
        changes_picture(page, lambda: choice(page, "λ").select_option("0"))
        tab(page, "All runs")
        page.get_by_text("Of 50,000 runs:").wait_for()
    for controls in page.locator(".ncbook-explorer .widget-hbox").locator("visible=true").all():
        box = controls.bounding_box()
        assert box["x"] + box["width"] <= size[0]
    page.screenshot(path=pictures / f"{case} {size[0]}.png")


def test_nothing_was_asked_of_others_and_nothing_failed(page, lab):
    outside = [url for url in page.asked if not url.startswith((lab, "blob:", "data:"))]
    assert outside == []
    assert page.errors == []


def test_what_is_saved_is_a_copy_and_the_clone_stays_as_it_was(page, clone):
    copy, source = clone / "lab" / "explorer.ipynb", clone / "notebooks" / "explorer.ipynb"
    wait_until(page, "a save", lambda: copy.read_bytes() != source.read_bytes())
    assert changes(clone) == ""
