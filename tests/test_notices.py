"""A message to the user is shown once, and where the user looks."""

import logging
from types import SimpleNamespace

import matplotlib as mpl
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter

from ncbook import explore, figures, notices, store, text

STORE = logging.getLogger("ncbook.store.reading")


def test_a_message_is_one_line_on_standard_error_and_once(capsys):
    notices.pass_to(notices._to_stderr)
    for _ in range(2):
        STORE.warning("a\nb\x1b[31m: %s", "damaged")
    STORE.info("all is well")
    assert capsys.readouterr().err == "ncbook: warning: a b\\x1b[31m: damaged\n"


def test_a_block_has_its_own_messages_and_leaves_the_rest_as_it_was(capsys):
    notices.pass_to(notices._to_stderr)
    seen = []
    STORE.warning("before")
    with notices.passed_to(lambda *message: seen.append(message)):
        STORE.warning("before")
        STORE.warning("within")
    STORE.warning("before")
    STORE.warning("after")
    assert seen == [("before", STORE.name), ("within", STORE.name)]
    assert capsys.readouterr().err == "ncbook: warning: before\nncbook: warning: after\n"


def test_an_error_in_a_block_does_not_keep_its_messages():
    before = notices.LOGGER.handlers
    with pytest.raises(ValueError, match="stop"), notices.passed_to(print):
        raise ValueError("stop")
    assert notices.LOGGER.handlers == before


def test_a_chapter_shows_them_on_its_page(monkeypatch):
    shown = []
    monkeypatch.setattr(figures.display, "display", lambda made: shown.append(made.data))
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(figures.display, "get_ipython", lambda: shell)
    with mpl.rc_context():
        figures.start_chapter()
    STORE.warning("<a>.parquet: damaged")
    logging.getLogger("ncbook.data").warning("x: left out")
    left_out = "<p><strong>Some of the stored runs are not shown here.</strong> "
    assert shown == [f"{left_out}{text.html('<a>.parquet: damaged')}</p>", "<p>x&#58; left out</p>"]


def test_the_explorer_lists_them(tmp_path, monkeypatch):
    def load_runs(folder):
        STORE.warning("a.parquet: damaged")
        return pd.DataFrame()

    monkeypatch.setattr(store, "load_runs", load_runs)
    assert explore.StoreView.of(tmp_path).complaints == ("a.parquet: damaged",)
