"""Sentences about runs: captions, counts, and whether an optimizer collapsed."""

from collections.abc import Sequence

import pandas as pd

from ncbook import text
from ncbook.figures.selecting import CONVERGED, best_run, by_optimizer, converged
from ncbook.figures.style import LABELS, METRICS, label_of
from ncbook.metrics import rule

FOUND = {False: "Differs", True: "Agrees", None: "Beyond the paper"}  # in a page's order
# The rule's outcomes as predicates.
PREDICATES = {word: word for word in rule.OUTCOMES} | {
    rule.IN_PART: "collapsed in part",
    rule.NOT: "did not collapse",
    rule.NOT_STORED: "collapsed in part, or but for its gauge, which is not stored",
}


def caption(runs: pd.DataFrame, short: bool = False) -> str:
    """A title, as plain text: optimizers (not if short), data set, network and epochs of some
    runs, and how many of them converged."""
    names = [] if short else [label_of(name) for name, _ in by_optimizer(runs)]
    for column in ("dataset", "model", "epochs"):
        names += [text.line(value, text.NAME) for value in runs[column].unique()]
    return f"{', '.join(names)} epochs (n = {len(converged(runs)):,} of {len(runs):,})"


def counted(runs: pd.DataFrame, least: float = CONVERGED) -> str:
    """How many runs and seeds; how many runs reached a training accuracy, did not, or diverged."""
    diverged = int((runs["status"] == "diverged").sum())
    good = int(((runs["status"] == "ok") & (runs["train_acc"] >= least)).sum())
    return (
        f"{_many(len(runs), 'run')} over {_many(runs['seed'].nunique(), 'seed')}: {good} reached "
        f"{least:.0%} training accuracy, {len(runs) - good - diverged} did not, and {diverged} "
        "diverged"
    )


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def counted_by_optimizer(runs: pd.DataFrame) -> str:
    """``counted`` for each optimizer, as a list."""
    return "\n".join(f"- {label_of(name)}: {counted(rows)}." for name, rows in by_optimizer(runs))


def headline(runs: pd.DataFrame) -> str:
    """The book's result in one sentence: the least NC3 of each optimizer with weight decay, over
    that of Adam."""
    decayed = runs[runs["weight_decay"] > 0]
    good = converged(decayed)
    least = {name: rows["nc3"].min() for name, rows in by_optimizer(good)}
    if not {"adam", "adamw", "signumw"} <= least.keys():
        return (
            f"{len(good)} of {len(decayed)} runs with weight decay converged: too few to compare."
        )
    listed = ", ".join(f"{label_of(name)} {value:.2g}" for name, value in least.items())
    ratios = " and ".join(
        f"{LABELS[name]}'s is {least[name] / least['adam']:.0f} times"
        for name in ("adamw", "signumw")
    )
    return (
        f"Over {len(good)} converged runs with weight decay, the least NC3 that each "
        f"optimizer reaches is: {listed}. {ratios} Adam's."
    )


def describe_best(runs: pd.DataFrame) -> str:
    """Which run the Table 2 rule picks, in one sentence."""
    best = best_run(runs)
    if best is None:
        return f"None of the {len(runs)} runs reached {CONVERGED:.0%} training accuracy."
    return (
        f"Of {len(converged(runs))} converged runs out of {len(runs)}: {_setting(best)}, seed "
        f"{best.seed}; training accuracy {best.train_acc:.1%}, test accuracy {best.test_acc:.1%}."
    )


def _setting(run: pd.Series) -> str:
    return f"learning rate {run.lr:g}, momentum {run.momentum:g}, weight decay {run.weight_decay:g}"


def outcomes(runs: pd.DataFrame) -> str:
    """How many of some runs collapsed, by the rule of ``ncbook.metrics.rule``.

    >>> ends = dict(status="ok", train_acc=1.0, nc1=0.01, nc2=0.05)
    >>> outcomes(pd.DataFrame([ends | dict(nc3=0.02), ends | dict(train_acc=0.5, nc3=0.02)]))
    'Of 2 runs: 1 collapsed; 1 did not learn'
    """
    counts = rule.outcome(runs).value_counts()
    listed = [f"{counts[word]:,} {PREDICATES[word]}" for word in rule.OUTCOMES if word in counts]
    return f"Of {_many(len(runs), 'run')}: {'; '.join(listed) or 'none'}"


def verdict(runs: pd.DataFrame) -> str:
    """Whether this optimizer collapsed: what the rule of ``ncbook.metrics.rule`` says of its best
    run, and of all its runs. NC0 has no part in it: only its share of ‖W‖ counts."""
    best = best_run(runs)
    if best is None:
        return describe_best(runs) + " Nothing can be said about collapse."
    row = best.to_frame().T
    word, small = PREDICATES[rule.outcome(row).item()], rule.below(row).item()
    named = f" ({small})" if word.startswith(PREDICATES[rule.IN_PART]) else ""
    metrics = ", ".join(f"{METRICS[name]} {best[name]:.3g}" for name in rule.THREE)
    return (
        f"**{label_of(best.optimizer)} {word}{named}.** Its best run ({_setting(best)}) ends with "
        f"{metrics}, at {best.train_acc:.1%} training accuracy; collapsed means that all three are "
        f"below {rule.THRESHOLD:g}. {outcomes(runs)}."
    )


def compared(findings: Sequence[tuple[bool | None, str]]) -> str:
    """A list of findings, each with whether it agrees with the paper: disagreements (False) first,
    then agreements (True), then what the paper does not cover (None)."""
    order = list(FOUND)
    ordered = sorted(findings, key=lambda finding: order.index(finding[0]))
    return "\n".join(f"- *{FOUND[agrees]}.* {words}" for agrees, words in ordered)


def times(factor: float) -> str:
    """By what factor something changed, in at least two digits: 1.7, 38, 1,070."""
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.1f}"
