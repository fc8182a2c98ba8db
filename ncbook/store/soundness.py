"""Rows that no training can have written: they are named, and left out of what is read."""

from collections.abc import Sequence

import duckdb

from ncbook.store.layout import Listing
from ncbook.store.names import DONE, FAILED, RUN_COLUMNS
from ncbook.store.scan import FILE, warn_of_damage

STATUSES = (*DONE, FAILED)
NOT_NEGATIVE = ("train_loss", "test_loss", "nc0", "nc1", "nc2", "nc3")
SHARES = ("train_acc", "test_acc", "nc4")
JUDGED = {name: RUN_COLUMNS[name] for name in ("status", *NOT_NEGATIVE, *SHARES)}
LEARNED = 0.99  # training accuracy
NAMED = 3  # of the runs of a file that have one fault


def _faults() -> dict[str, str]:
    """What may be wrong with a row: in words, and as a condition in SQL."""
    value = {name: f"TRY_CAST({name} AS DOUBLE)" for name in JUDGED}
    lost = {name: f"({v} IS NULL OR isnan({v}))" for name, v in value.items()}
    unknown = f"status IS NULL OR status NOT IN {STATUSES}"
    faults = {f"a status other than {', '.join(STATUSES)}": unknown}
    # A row without NC1 was not written by a training, and need not have the others.
    for name in ("train_acc", "nc0"):
        faults[f"ok without {name}"] = f"status = 'ok' AND {lost[name]} AND NOT {lost['nc1']}"
    # NC2 and NC3 are NaN where M = 0: never where a network tells the classes apart.
    learned = f"status = 'ok' AND {value['train_acc']} >= {LEARNED} AND NOT {lost['nc1']}"
    for name in ("nc2", "nc3"):
        faults[f"ok without {name}"] = f"{learned} AND {lost[name]}"
    for name in (*NOT_NEGATIVE, *SHARES):
        faults[f"{name} below 0"] = f"{value[name]} < 0"
    for name in ("nc0", "nc1", "nc2", "nc3"):
        faults[f"ok with infinite {name}"] = f"status = 'ok' AND isinf({value[name]})"
    for name in SHARES:
        faults[f"{name} above 1"] = f"{value[name]} > 1 AND NOT {lost[name]}"
    return faults


# SQL: what is wrong with a row that has the columns JUDGED; null for a sound one.
FAULT = "CASE {} END".format(
    " ".join(f"WHEN {sql} THEN '{words}'" for words, sql in _faults().items())
)


def leave_out_unsound(con: duckdb.DuckDBPyConnection, listing: Listing) -> None:
    """Make the table ``sound``, run_id and FILE of those rows of ``stored`` that can be true, and
    warn of the others."""
    con.execute(f"CREATE TEMP TABLE judged AS SELECT run_id, {FILE}, {FAULT} AS fault FROM stored")
    con.execute(f"CREATE TEMP TABLE sound AS SELECT run_id, {FILE} FROM judged WHERE fault IS NULL")
    found = con.execute(f"""
        SELECT {FILE}, fault, list(run_id ORDER BY run_id)
        FROM judged WHERE fault IS NOT NULL GROUP BY ALL ORDER BY ALL
    """).fetchall()
    for key, fault, ids in found:
        warn_of_damage(listing.runs[key], faults_in_words(fault, ids, "left out"))


def faults_in_words(fault: str, ids: Sequence[str], consequence: str) -> str:
    """``1 run is left out, with nc0 below 0: c415f57250d81bfb``."""
    named = ", ".join(map(str, ids[:NAMED])) + (", …" if len(ids) > NAMED else "")
    runs = "1 run is" if len(ids) == 1 else f"{len(ids)} runs are"
    return f"{runs} {consequence}, with {fault}: {named}"
