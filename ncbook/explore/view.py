"""What a store has, as the explorer offers it; and what to do if it has nothing."""

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import pandas as pd

from ncbook import figures, models, notices, optim, store, text
from ncbook.train import RunConfig

PUBLISHED = Path(__file__).parents[2] / "book" / "results"
LINE = "papermill notebooks/sweep.ipynb out.ipynb -p optimizer adamw"
NEEDED = ["dataset", "model", "lr", "momentum", "weight_decay", "seed"]
NOT_IN_RECIPE = {"dataset", "model", *figures.SWEPT, *figures.FILLED_IN}
RECIPE = {f.name: f.default for f in fields(RunConfig) if f.name not in NOT_IN_RECIPE}
MEASURES = figures.METRICS | figures.ACCURACIES


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
    """The runs of a store, and the notices that came up while they were read. The column
    ``recipe`` says in words which settings without a control of their own a run has."""

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
        return cls(folder, _prepared(runs), tuple(complaints))

    def history(self, runs: pd.DataFrame) -> pd.DataFrame:
        """The epochs of some runs."""
        with notices.passed_to(lambda *_: None):  # already complaints
            return store.load_history(self.folder, run_id=list(runs["run_id"]))

    def summary(self) -> str:
        """How many runs there are, and the complaints; HTML."""
        lines = [f"{len(self.runs):,} runs in {self.folder}", *self.complaints]
        return "<br>".join(map(text.html, lines))

    def invitation(self) -> str:
        """What to do about an empty store, HTML."""
        folder = self.folder.absolute()  # the terminal may be in another folder
        line = f"{LINE} -p results {shlex.quote(str(folder))}"
        return (
            f"<p>There are no runs in <code>{text.html(self.folder)}</code> yet, so there is "
            "nothing to explore here. This line, in a terminal at the top of the repository, "
            "trains AdamW's whole grid on the digits. Then press <b>Reload</b>.</p>"
            f'<pre style="white-space: pre-wrap">{text.html(line)}</pre>'
            "<p><b>Train it now</b> and <b>Theory</b> need no store.</p>"
        )


def _prepared(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose settings are all known, with every column that the explorer reads."""
    if runs.empty:
        return runs
    runs = runs[runs["optimizer"].isin(optim.OPTIMIZERS)].dropna(subset=NEEDED)
    wanted = ["coupled_share", *RECIPE, *MEASURES]
    runs = runs.assign(**{name: float("nan") for name in wanted if name not in runs})
    by_name = {name: rule.coupled_share for name, rule in optim.OPTIMIZERS.items()}
    shares = runs["coupled_share"].astype(float)
    shares = shares.fillna(runs["optimizer"].map(by_name).astype(float))
    recipes = [_recipe(**run) for run in runs[["model", *RECIPE]].to_dict("records")]
    return runs.assign(recipe=recipes, coupled_share=shares)


def _recipe(model: str, epochs: int, **settings: Any) -> str:
    """``200 epochs``, and each setting that differs from its default."""
    own = {"schedule": models.MODELS[model].schedule} if model in models.MODELS else {}
    words = [f"{epochs} epochs"]
    for name, value in settings.items():
        if pd.notna(value) and value != (RECIPE | own)[name]:
            shown = f"{value:g}" if isinstance(value, float) else value
            words.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(words)
