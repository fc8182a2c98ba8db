import contextlib
import functools
import re
import shutil
import signal
import sys

import numpy as np
import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from ncbook import notices, store

SECONDS = 600  # until something counts as hung; no test may need less, since a machine may be busy
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Under ``-n``, a module with fixtures of its own goes to one worker, which makes them once;
    all other tests go to any. Modules come first, so that single tests fill up the end."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFixtures(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return path if has_fixtures(config.rootpath / path) else nodeid

    return ByFixtures(config, log)


@functools.cache
def has_fixtures(path):
    return 'fixture(scope="module")' in path.read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def ctrl_c_is_an_interrupt():
    """Here, and in all that tests start: a shell's background job ignores it, dask_jobqueue ends
    the process, and after a stop our own commands ignore another, SIGTERM too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def rng():
    """The one source of randomness in tests: the same numbers in every test that asks for it."""
    return np.random.default_rng(20)


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Where cells of a chapter are executed, no notebook closes their figures."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@pytest.fixture(autouse=True)
def no_notice_is_overlooked(monkeypatch):
    """A notice that a test does not expect is an error, as a warning is; but for downloads'."""
    unexpected = []

    def take(message, module):
        unexpected.extend([message] * (module != "ncbook.data.downloads"))

    handlers = [notices.Notices(take)]
    monkeypatch.setattr(notices.LOGGER, "handlers", handlers)
    yield
    assert unexpected == []


@contextlib.contextmanager
def noticed(match=""):
    """A notice in this block has these words; None: there may be any or none. The messages."""
    found = []
    with notices.passed_to(lambda message, _: found.append(message)):
        yield found
    assert match is None or any(re.search(match, message) for message in found), found


def put_store(folder, runs, history=()):
    """A store of two frames, as one file; the folder."""
    frames = [pd.DataFrame(frame).astype(object) for frame in (runs, history)]
    store.write(folder, *(f.where(f.notna(), None).to_dict("records") for f in frames))
    return folder


@pytest.fixture(scope="module")
def shell():
    """A notebook's Python, in this process: a kernel of its own would take ten seconds a page."""
    shell = InteractiveShell.instance()
    yield shell
    InteractiveShell.clear_instance()
    shell.restore_sys_module_state()  # or processes that later tests start find no __main__


def outputs(shell, source):
    """What a cell displays, and its result: the kind and the content of each."""
    with capture_output() as caught:
        done = shell.run_cell(source)
    done.raise_error()
    assert caught.stderr == ""
    result = [] if done.result is None else [shell.display_formatter.format(done.result)[0]]
    for data in [output.data for output in caught.outputs] + result:
        kind = next(k for k in ("text/markdown", "text/html", "text/plain") if k in data)
        yield kind, data[kind]


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by Playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=SECONDS * 1000
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(browser):
    """Opens pages, with the options of Playwright's ``new_page``, that wait for a busy machine."""

    def open_page(**options):
        page = browser.new_page(**options)
        page.set_default_timeout(SECONDS * 1000)
        return page

    return open_page
