"""The chapters on the metrics and on the paper's printed numbers: the assertions in their cells,
their solutions' too, and what the second one writes out."""

import re
from pathlib import Path

import jupytext
import matplotlib as mpl
import pytest
import torch
from conftest import outputs
from matplotlib import pyplot as plt

from ncbook import metrics

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PROSE = re.sub(r"\s*\n# *", " ", (NOTEBOOKS / "printed.py").read_text(encoding="utf-8"))
K, P = 10, 512


def names_of(shell, chapter):
    """What an executed chapter has defined."""
    shell.reset(new_session=True)
    cells = jupytext.read(NOTEBOOKS / f"{chapter}.py").cells
    with mpl.rc_context({"backend": "agg"}):
        for source in [cell.source for cell in cells if cell.cell_type == "code"]:
            list(outputs(shell, source))
    torch.set_default_dtype(torch.float32)
    plt.close("all")
    return dict(shell.user_ns)


@pytest.fixture(scope="module")
def printed(shell):
    return names_of(shell, "printed")


def test_on_the_metrics_every_assertion_holds(shell):
    found = names_of(shell, "metrics")
    assert len(found["pairs"]) == 1600
    assert "1,600 random pairs" in (NOTEBOOKS / "metrics.py").read_text(encoding="utf-8")


def test_what_the_formulas_allow(printed):
    """NC2 at its largest is that of means on a line."""
    table, line = printed["at_end"], torch.linspace(-1, 1, K, dtype=torch.float64)[:, None]
    nc2 = metrics.etf_distance(line @ line.T).item()
    words = f"NC3 up to {table['NC3'].max():.2f} and NC2 up to {table['NC2'].max():.2f}, where "
    words += f"the formulas allow {2 / (K * P):.4f} and {nc2 / K**2:.3f} at most, and NC1 down to "
    assert words + f"{table['NC1'].min():.2f}, where they allow no less than {1 - 1 / K}." in PROSE
    assert round(nc2, 2) == table["NC2"].max()
    assert table["NC3"].max() < 2
    assert f"below {1 - 1 / K}, and Table 1 prints {table.loc['adam', 'NC1']:.2f} for Adam" in PROSE


def test_where_the_runs_began(printed):
    start = (printed["at_end"] / (1 + printed["change"] / 100))[["NC0", "NC3"]]
    low, high = start.min(), start.max()
    assert f"between {low['NC3']:.2f} and {high['NC3']:.2f}: $\\sqrt2$" in PROSE
    fresh = printed["fresh"]
    words = (
        f"NC0 of {low['NC0']:.2f} to {high['NC0']:.2f}, where {len(fresh)} fresh layers of ours "
    )
    assert words + f"have {fresh.mean():.2f} ± {fresh.std():.2f}:" in PROSE
    torch.manual_seed(0)
    layer = torch.nn.Linear(P, 1000 * K).weight.detach().double()
    by_torch = metrics.nc0(layer.reshape(1000, K, P))
    assert by_torch.square().mean().item() == pytest.approx(K / 3, rel=0.01)
    assert fresh.square().mean().item() == pytest.approx(K / 3, rel=0.02)


def test_two_chapters_type_the_same_table(printed):
    text = (NOTEBOOKS / "coupling.py").read_text(encoding="utf-8")
    table = re.search(r'PRINTED_1 = """\n(.+?)"""', text, re.DOTALL)[1].replace("−", "-")
    for name, *cells in (line.split(" | ") for line in table.splitlines()):
        for metric, cell in zip(("NC0", "NC1", "NC2", "NC3"), cells, strict=True):
            value, change = re.fullmatch(r"(\S+) \((.+)\)", cell).groups()
            assert printed["at_end"].loc[name, metric] == float(value)
            exact = re.fullmatch(r"[-+][\d.]+%", change)
            if exact and metric in printed["change"]:
                assert printed["change"].loc[name, metric] == float(change[:-1])
