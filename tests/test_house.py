"""The package's floors: a module imports from floors below its own and from its own room alone; and
its functions are short."""

import ast
import tomllib
from pathlib import Path
from statistics import median

import pytest

PACKAGE = Path(__file__).parents[1] / "ncbook"
FLOORS = (
    *[{"paths", "text"}],
    *[{"notices", "own", "parameters"}],
    *[{"metrics", "optim", "models", "data", "theory", "stats"}],
    *[{"train", "store", "measure"}],
    *[{"sweep", "cli"}],
    *[{"figures", "explore", "live", "pages"}],
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# On a floor, who may look into whose room: a command line is a shell around sweeps, and pages and
# panels are made of figures.
SIDEWAYS = {
    ("cli", "sweep"),
    *((room, shown) for room in ("explore", "pages") for shown in ("figures", "live")),
}
LONGEST, USUAL = 40, 8  # lines of a function, its docstring apart
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(tree):
    """The rooms that a module names in its imports, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "ncbook":
            yield from (alias.name for alias in node.names if alias.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ncbook."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("ncbook.")]
            yield from (name.split(".")[1] for name in names)


def is_allowed(room, other):
    return room == other or FLOOR[other] < FLOOR[room] or (room, other) in SIDEWAYS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_from_below(path):
    room = room_of(path)
    if room == "__init__":
        pytest.skip("the package's own face")
    found = set(rooms_imported(ast.parse(path.read_text(encoding="utf-8"))))
    assert {other for other in found if not is_allowed(room, other)} == set()


def test_every_folder_is_a_package():
    """Else an installed ncbook would lack it."""
    assert [path for path in MODULES if not path.with_name("__init__.py").exists()] == []


def test_files_that_are_not_python_are_packaged():
    """Else an installed ncbook, as Colab's notebooks have, would lack it."""
    given = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    named = given["tool"]["setuptools"]["package-data"]
    packaged = {f"{package}.{name}" for package, names in named.items() for name in names}
    files = [path for path in PACKAGE.rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert files
    assert {".".join(("ncbook", *path.relative_to(PACKAGE).parts)) for path in files} == packaged


def lengths():
    """Lines of code of each function, without its docstring."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                described = ast.get_docstring(node) is not None and len(node.body) > 1
                body = node.body[described:]
                name = f"{path.relative_to(PACKAGE)}:{node.name}"
                yield name, body[-1].end_lineno - body[0].lineno + 1


def test_functions_are_short():
    found = dict(lengths())
    assert {name: lines for name, lines in found.items() if lines > LONGEST} == {}
    assert median(found.values()) <= USUAL
