"""Sphinx extension: what all pages have, and what none has."""

import os
import re
from pathlib import Path

from jupyter_cache import get_cache
from sphinx.errors import ConfigError

REPOSITORY = "NCBOOK_REPOSITORY"  # the variable with the public address of the book's sources
BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"
STATIC = Path(__file__).parents[1] / "_static"


def setup(app):
    app.connect("config-inited", add_style)
    app.connect("config-inited", add_buttons)
    app.connect("env-before-read-docs", read_in_parallel)
    app.connect("env-updated", write_alone)
    app.connect("html-page-context", leave_out_thebe, priority=900)
    app.connect("html-page-context", lead_to_colabs_branch, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read_in_parallel(app, env, docnames):
    """Pages are read, and with that executed, by up to four processes. Jupyter Book has no option
    for it, and two of its extensions do not say that they are safe: they act on the whole book.
    Each has one thread: two kernels with two threads each, on two cores, took 17 times as long for
    small products, since torch's threads wait for each other."""
    app.parallel = min(os.cpu_count(), 4)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name in ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex"):
        app.extensions[name].parallel_read_safe = True
    # Here, or two processes make the cache's database at once.
    get_cache(env.mystnb_config.execution_cache_path).list_cache_records()


def write_alone(app, env):
    app.parallel = 1


def add_style(app, config):
    config.html_static_path.append(str(STATIC))
    app.add_css_file("ncbook.css")
    app.add_js_file("formulas.js", loading_method="defer")


def add_buttons(app, config):
    """Buttons to the sources, to an issue about the page, and to the page as a notebook on Binder
    and, if GitHub has the sources, on Colab: only where it is said where the sources are, as a copy
    of this project may be anywhere."""
    address = os.environ.get(REPOSITORY, "").removesuffix("/").removesuffix(".git")
    if not address:
        return
    if not re.fullmatch(r"https://(github|gitlab)\.com/[^/\s]+/[^/\s]+", address):
        wanted = "https://github.com/OWNER/NAME or https://gitlab.com/OWNER/NAME"
        raise ConfigError(f"{REPOSITORY} is {address!r}, but wanted is {wanted}")
    launch = {"binderhub_url": BINDER, "notebook_interface": "jupyterlab"}
    if "github.com" in address:
        launch["colab_url"] = COLAB
    config.html_theme_options |= {
        "repository_url": address,
        "repository_branch": "main",
        "use_repository_button": True,
        "use_issues_button": True,
        "launch_buttons": launch,
    }


def lead_to_colabs_branch(app, pagename, templatename, context, doctree):
    """Colab opens a notebook alone: the one whose first cell fetches the package is in the branch
    that the workflow makes with book/colab.py."""
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("url", "").startswith(COLAB):
                button["url"] = button["url"].replace("/blob/main/", "/blob/colab/")


def leave_out_thebe(app, pagename, templatename, context, doctree):
    """Jupyter Book always brings Thebe along. Its script names a server, comes twice in each page,
    and ends in an error the second time."""
    context["script_files"] = [s for s in context.get("script_files", []) if not is_thebes(s)]


def is_thebes(script):
    said = f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}"
    return "thebe" in said.lower()
