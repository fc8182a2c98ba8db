"""The example of every docstring runs and prints what it says."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

import ncbook

ROOT = Path(ncbook.__file__).parents[1]


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def examples_of(source, name):
    """The docstrings of a module that have examples, also where a decorator wraps the function."""
    parser = doctest.DocTestParser()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{name}.{getattr(node, 'name', '__doc__')}"
            line = getattr(node, "lineno", 0)
            test = parser.get_doctest(ast.get_docstring(node) or "", {}, where, None, line)
            if test.examples:
                yield test


def failures_of(tests, names):
    """What the examples printed in place of what they say; each docstring starts afresh."""
    runner, told = doctest.DocTestRunner(verbose=False), []
    for test in tests:
        test.globs = dict(names)
        runner.run(test, out=told.append)
    return "".join(told)


SOURCES = {
    module_name(path): path.read_text()
    for path in sorted(Path(ncbook.__file__).parent.rglob("*.py"))
}
MODULES = {name: list(examples_of(source, name)) for name, source in SOURCES.items()}


@pytest.mark.parametrize("name", [name for name, tests in MODULES.items() if tests])
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an example may name a file
    assert not failures_of(MODULES[name], vars(importlib.import_module(name)))


def test_every_example_is_run():
    for name, tests in MODULES.items():
        run = [example for test in tests for example in test.examples]
        assert not any(doctest.SKIP in example.options for example in run), name
        assert SOURCES[name].count(">>> ") == len(run), name
    assert sum(map(len, MODULES.values())) >= 30


def test_a_wrong_example_is_found():
    source = '@decorated\ndef f():\n    """Half.\n\n    >>> 1 / 2\n    0.25\n    """\n'
    (test,) = examples_of(source, "f")
    assert "Expected:\n    0.25\nGot:\n    0.5" in failures_of([test], {})
