"""Sphinx extension: pages without Thebe, which Jupyter Book always brings along. Its script names a
server, comes twice in each page, and the second then ends in an error."""


def setup(app):
    app.connect("html-page-context", leave_out, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def leave_out(app, pagename, templatename, context, doctree):
    context["script_files"] = [s for s in context.get("script_files", []) if not is_thebes(s)]


def is_thebes(script):
    said = f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', '')}"
    return "thebe" in said.lower()
