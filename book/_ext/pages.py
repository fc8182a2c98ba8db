"""Sphinx extension: what all pages have, and what none has."""

from pathlib import Path

STATIC = Path(__file__).parents[1] / "_static"


def setup(app):
    app.connect("config-inited", add_style)
    app.connect("html-page-context", leave_out_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_style(app, config):
    config.html_static_path.append(str(STATIC))
    app.add_css_file("ncbook.css")


def leave_out_thebe(app, pagename, templatename, context, doctree):
    """Jupyter Book always brings Thebe along. Its script names a server, comes twice in each page,
    and ends in an error the second time."""
    context["script_files"] = [s for s in context.get("script_files", []) if not is_thebes(s)]


def is_thebes(script):
    said = f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}"
    return "thebe" in said.lower()
