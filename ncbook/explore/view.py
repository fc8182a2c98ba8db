"""What a store has, as the explorer offers it; what its numbers mean, and how to train its runs."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import pandas as pd

from ncbook import figures, models, notices, optim, store, text
from ncbook.metrics import rule
from ncbook.parameters import GRID, TABLE, TRAINING
from ncbook.train import RunConfig

PUBLISHED = Path(__file__).parents[2] / "book" / "results"
LINE = "papermill notebooks/sweep.ipynb out.ipynb"
NEEDED = ["dataset", "model", "lr", "momentum", "weight_decay", "seed"]
NOT_IN_RECIPE = {"dataset", "model", *figures.SWEPT, *figures.FILLED_IN}
RECIPE = {f.name: f.default for f in fields(RunConfig) if f.name not in NOT_IN_RECIPE}
MEASURES = figures.METRICS | figures.GAUGE | figures.ACCURACIES
MEANING = {
    "nc0": "length of the sum of W's rows; it counts as a share of the norm of W: the gauge share",
    "nc1": "spread of features within classes over that between them; 0 in a collapsed network",
    "nc2": "distance of the class means from equal norms and angles; 0 in a collapsed network",
    "nc3": "distance of W from the class means, both of norm 1; 0 in a collapsed network",
    "nc4": "share of test images that go to the nearest class mean; 100 % in a collapsed network",
    "gauge_share": "share of W's norm in the one direction that changes no prediction",
    "nc3_centred": "NC3 without that direction",
    "train_acc": "share of training images classified correctly; below 99 % it did not learn",
    "test_acc": "share of test images classified correctly",
}
# How a recipe tells of a setting; of any other by its name and value.
TOLD = {"train_size": "{:,} images", "centred_head": "centred last layer"}
TOLD |= {"head_optimizer": "last layer {}", "head_lr": "its η {:g}"}
TOLD |= {"head_momentum": "its β {:g}", "head_weight_decay": "its λ {:g}"}
SHARES = ("nc4", *figures.ACCURACIES)  # shown in per cent


def folders(results: str | Path | None = None) -> dict[str, Path]:
    """The stores to choose from, by name: ``results``; or by default the reader's own and the one
    that the book publishes, the first that has files first."""
    if results:
        return {text.line(results): store.results_dir(results)}
    own = store.results_dir()
    found = {f"yours: {text.line(own)}": own}
    if PUBLISHED.is_dir() and PUBLISHED.resolve() != own.resolve():
        found["published with the book"] = PUBLISHED
    return dict(sorted(found.items(), key=lambda item: not store.list_files(item[1])))


@dataclass(frozen=True)
class StoreView:
    """The runs of a store, and the notices that came up while they were read. Two columns are
    added: ``recipe`` says in words which settings without a control of their own a run has, and
    ``outcome`` whether it collapsed, by the one rule (``ncbook.metrics.rule``)."""

    folder: Path
    runs: pd.DataFrame
    complaints: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read a folder; one that cannot be read is an empty view with a complaint."""
        complaints: list[str] = []
        with notices.passed_to(lambda message, _: complaints.append(message)):
            try:
                runs = store.load_runs(folder)
            except (OSError, ValueError) as error:
                runs, complaints = pd.DataFrame(), [f"{folder} cannot be read: {error}"]
        if not folder.is_dir():
            complaints.append(f"{folder} is {'no folder' if folder.exists() else 'not there'}")
        shown = _prepared(runs)
        if left_out := len(runs) - len(shown):
            names = map(str, runs.loc[runs.index.difference(shown.index), "optimizer"].unique())
            why = f"an unknown optimizer, or lack a setting: {text.line(', '.join(names), 200)}"
            complaints.append(f"{left_out:,} of {len(runs):,} runs are not shown. They have {why}")
        return cls(folder, shown, tuple(complaints))

    def history(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The epochs of some runs."""
        with notices.passed_to(lambda *_: None):  # already complaints
            return store.load_history(self.folder, run_id=list(runs["run_id"]))

    def summary(self) -> str:
        """How many runs there are, and the complaints; HTML."""
        lines = [f"{len(self.runs):,} runs in {self.folder}", *self.complaints]
        return "<br>".join(map(text.html, lines))

    def invitation(self) -> str:
        """What to do about a store with nothing to show, HTML."""
        folder = self.folder.absolute()  # the terminal may be in another folder
        line = f"{LINE} -p optimizer adamw -p results {shlex.quote(str(folder))}"
        why = f"There are no runs in {self.folder} yet"
        if self.complaints:
            why = f"{'; '.join(self.complaints)}. So there are no runs to explore"
        return (
            f"<p>{text.html(why)}. This line, in a terminal "
            "at the top of the repository, trains AdamW's whole grid on the digits. Then press "
            f"<b>Reload</b>.</p><pre>{text.html(line)}</pre>"
            "<p><b>Train it now</b> and <b>Theory</b> need no store.</p>"
        )


def line_that_trains(runs: pd.DataFrame) -> str:
    """The shell line that trains these runs, of one optimizer: each parameter that a sweep would
    set otherwise."""
    words = [LINE]
    for row in TABLE:
        mixed = row.field != "coupled_share" or runs["optimizer"].iloc[0].endswith(figures.MIXED)
        if row.group in (GRID, TRAINING) and row.field in runs and mixed:
            values = runs[row.field].dropna().drop_duplicates().sort_values().tolist()
            if values and (row.many or row.name == "optimizer" or values != [row.default]):
                words.append(f"-p {row.name} {shlex.quote(', '.join(map(str, values)))}")
    return " ".join(words)


def _prepared(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose settings are all known."""
    if runs.empty:
        return runs
    runs = runs[runs["optimizer"].isin(figures.present(runs["optimizer"]))].dropna(subset=NEEDED)
    by_name = {name: rule.coupled_share for name, rule in optim.OPTIMIZERS.items()}
    shares = runs["coupled_share"].astype(float)
    # Of a reader's own class the form of decay is not known; then the control is hidden.
    shares = shares.fillna(runs["optimizer"].map(by_name).astype(float)).fillna(0.0)
    recipes = [_recipe(**run) for run in runs[["model", *RECIPE]].to_dict("records")]
    return runs.assign(recipe=recipes, coupled_share=shares, outcome=rule.outcome(runs))


def _recipe(model: str, epochs: int, **settings: Any) -> str:
    """``200 epochs``, and each setting that differs from its default."""
    own = {"schedule": models.MODELS[model].schedule} if model in models.MODELS else {}
    words = [f"{epochs} epochs"]
    for name, value in settings.items():
        if pd.notna(value) and value != (RECIPE | own)[name]:
            shown = figures.look(value)["label"] if name == "head_optimizer" else value
            form = "{:g}" if isinstance(value, float) else "{}"
            words.append(TOLD.get(name, f"{name.replace('_', ' ')} {form}").format(shown))
    return ", ".join(words)
