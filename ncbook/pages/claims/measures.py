"""Numbers for the claims page, from stored runs or closed forms.

A measure returns named numbers, NaN where no run is stored; a claim names its measure in
``measured: NAME`` and its text shows them as ``{number:.2f}``. Unless it says otherwise, a measure
of :class:`Rows` looks at the converged runs (at least 99 % training accuracy) of the six digits
sweeps, of all seeds whose grids are complete.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import linregress

from ncbook import data, figures, store, sweep, theory
from ncbook.metrics import rule
from ncbook.pages import six_grids, table_1

EPOCHS = six_grids.SETTING["epochs"]
LAW_ABOVE = 1e-2  # NC0 by the law from which rounding plays no part
STRONG = 0.05  # the weight decay of the paper's best SGD, SGDW and Adam runs (Table 4)
FASHION_STEPS = 469  # 60,000 images in batches of 128
PAIRS = (("adam", "adamw"), ("signum", "signumw"))
NETWORKS = ("resnet9", "vgg9")  # the paper's
LR, MOMENTUM = 0.005, 0.9  # of AdamW, where it stands next to two optimizers in one network
TORCH_DECAY = 0.01  # of AdamW, if none is given


class Numbers(dict[str, float | str]):
    """Named numbers, and the runs that they are of: ``used`` has these by a number's name, by what
    its name begins with, or by "" for all numbers."""

    def __init__(
        self, values: Mapping[str, float | str], used: Mapping[str, pd.DataFrame] | None = None
    ) -> None:
        super().__init__(values)
        self.used = used or {}

    def runs_of(self, names: Iterable[str]) -> pd.DataFrame:
        """The runs behind some of the numbers, each once; an empty frame for none."""
        begins = tuple(f"{name}_" for name in names)
        found = [
            runs
            for part, runs in self.used.items()
            if not part or any(name.startswith(f"{part}_") for name in begins)
        ]
        return pd.concat(found).drop_duplicates("run_id") if found else pd.DataFrame()


@dataclass(frozen=True)
class Rows:
    """The stored runs that measures read: the digits sweeps, their epochs, the UFM sweep; which of
    the paper's optimizers have no digits runs, with ``ufm`` if there are no UFM runs; all runs of
    the paper's networks, narrow and on some of the images, of any data, whose last layer moves as
    the rest does; the digits runs of AdamW at torch's decay; all runs of this length on the digits
    MLP (``small``); and every run of the store."""

    digits: pd.DataFrame
    history: pd.DataFrame
    ufm: pd.DataFrame
    missing: tuple[str, ...] = ()
    networks: pd.DataFrame = field(default_factory=pd.DataFrame)
    fixed: pd.DataFrame = field(default_factory=pd.DataFrame)
    small: pd.DataFrame = field(default_factory=pd.DataFrame)
    every: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def converged(self) -> pd.DataFrame:
        """The digits runs that did not diverge and reached 99 % training accuracy."""
        return figures.converged(self.digits)

    def select(self, setting: Mapping[str, object]) -> pd.DataFrame:
        """The converged runs of a setting (``figures.of_setting``), whose last layer moves as the
        rest does; a list has several values of a parameter."""
        many = {name: value for name, value in setting.items() if isinstance(value, list)}
        one = {name: value for name, value in setting.items() if name not in many}
        parts = [dict(zip(many, values, strict=True)) for values in product(*many.values())]
        runs = pd.concat([figures.of_setting(self.every, **one, **part) for part in parts])
        return figures.converged(figures.uniform(runs))


def read_rows(results: str | Path | None = None) -> Rows:
    """The rows that the measures need, from a results folder (see ``store.results_dir``)."""
    stored = six_grids.stored(results)
    runs = six_grids.complete(stored)
    ufm = store.load_runs(results, dataset=data.UFM)
    samples = ufm["train_size"].fillna(data.UFM_SAMPLES)
    present = {*runs["optimizer"], *ufm["dataset"]}
    small = store.load_runs(results, dataset="digits", model="mlp", epochs=EPOCHS, status="ok")
    networks = figures.uniform(store.load_runs(results, model=list(NETWORKS)))
    return Rows(
        runs,
        store.load_history(results, run_id=list(runs["run_id"])),
        ufm.assign(train_size=samples)[samples == samples.max()],
        tuple(name for name in (*sweep.GRIDS, data.UFM) if name not in present),
        networks[networks["train_size"].notna() & (networks["width"] < 1)],
        stored[(stored["optimizer"] == "adamw") & (stored["weight_decay"] == TORCH_DECAY)],
        small[small["depth"].isna() & (small["width"] == 1)],
        store.load_runs(results),
    )


def ends(rows: Rows) -> Numbers:
    """How groups of runs ended (see ``_ended``): on digits with weight decay (``decayed``), without
    (``free``: of the coupled forms, to which the decoupled ones are equal then), with it by
    optimizer (``adam``), of the optimizer at all (``all_adam``), and AdamW at torch's decay
    (``fixed``); on the paper's networks with decay by optimizer (``networks_adam``), of Adam and
    Signum (``networks_coupled``) and of AdamW and SignumW; and there on CIFAR-10 (JPEG), any decay
    (``cifar``). The least NC3 of AdamW's and SignumW's decayed digits runs over the coupled
    ones'."""
    digits, networks = rows.digits, rows.networks[rows.networks["weight_decay"] > 0]
    decayed, free = (digits[digits["weight_decay"] > 0], digits[digits["weight_decay"] == 0])
    free = free[free["optimizer"].isin(["sgd", "adam", "signum"])]
    cifar = rows.networks[rows.networks["dataset"].str.contains("cifar10")]
    groups = {"decayed": decayed, "free": free, "fixed": rows.fixed, "cifar": cifar}
    for kind, names in zip(("coupled", "decoupled"), zip(*PAIRS, strict=True), strict=True):
        groups[f"networks_{kind}"] = networks[networks["optimizer"].isin(names)]
    for name in sweep.GRIDS:
        for prefix, runs in (("", decayed), ("all_", digits), ("networks_", networks)):
            groups[f"{prefix}{name}"] = runs[runs["optimizer"] == name]
    found = {f"{name}_{k}": v for name, runs in groups.items() for k, v in _ended(runs).items()}
    ratios = {f"{w}_over_{name}": found[f"{w}_nc3"] / found[f"{name}_nc3"] for name, w in PAIRS}
    return Numbers(found | ratios, {name: figures.converged(g) for name, g in groups.items()})


def _ended(runs: pd.DataFrame) -> dict[str, float]:
    """How many runs there are, how many converged (n), how many of these collapsed by the rule, how
    many fell below their starting NC0; least NC3, and least NC0 and NC3 over their start."""
    good = figures.converged(runs)
    left = figures.fraction_of_start(good, ["nc0", "nc3"])
    return {
        "runs": len(runs),
        "n": len(good) or np.nan,
        "collapsed": int(rule.collapsed(good).sum()),
        "fell": int((left["nc0"] < 1).sum()),
        "nc3": good["nc3"].min(),
        "nc0_left": left["nc0"].min(),
        "nc3_left": left["nc3"].min(),
    }


def best(rows: Rows) -> Numbers:
    """As Tables 2 and 4: the settings of each optimizer's least-NC3 run, in words, and its NC0 and
    NC3 over the start."""
    found: dict[str, float | str] = {}
    runs = rows.converged
    for _, run in runs.loc[runs.groupby("optimizer")["nc3"].idxmin()].iterrows():
        setting = f"η {run['lr']:g}, β {run['momentum']:g}, λ {run['weight_decay']:g}"
        left = {metric: run[metric] / run[f"{metric}_init"] for metric in ("nc0", "nc3")}
        found |= {f"{run['optimizer']}_{k}": v for k, v in ({"setting": setting} | left).items()}
    return Numbers(found, {name: runs[runs["optimizer"] == name] for name in sweep.GRIDS})


def equal_decay(rows: Rows) -> Numbers:
    """Mean NC0 and NC3 with decoupled over coupled decay, at each positive λ of both grids: the
    least and the largest ratio; and the decoupled mean at the largest λ of its own grid over the
    coupled one at 0.05."""
    runs = rows.converged[rows.converged["weight_decay"] > 0]
    means = runs.groupby(["optimizer", "weight_decay"])[["nc0", "nc3"]].mean()
    found, used = {}, {}
    for coupled, decoupled in PAIRS:
        used[coupled] = runs[runs["optimizer"].isin([coupled, decoupled])]
        ratio = means.loc[decoupled] / means.loc[coupled]
        last = means.loc[decoupled].iloc[-1] / means.loc[coupled].loc[STRONG]
        for name, values in (("least", ratio.min()), ("most", ratio.max()), ("last", last)):
            found |= {f"{coupled}_{metric}_{name}": value for metric, value in values.items()}
    return Numbers(found, used)


def momentum(rows: Rows) -> Numbers:
    """SGD with decay, one step up in momentum at a time, each seed: how often NC0 and NC3 fall
    below β*."""
    sgd = rows.converged.query("optimizer == 'sgd' and weight_decay > 0")
    sgd = sgd.sort_values("momentum", ignore_index=True)
    steps = sgd.groupby(["lr", "weight_decay", "seed"])[["nc0", "nc3"]].diff().dropna()
    critical = theory.critical_momentum(sgd["lr"], sgd["weight_decay"])
    below = (sgd["momentum"] < critical)[steps.index]
    falls = (steps < 0)[below]
    counts = {f"below_{name}": int(falls[name].sum()) for name in falls}
    return Numbers({"below": len(falls)} | counts, {"": sgd})


def sgd_pairs(rows: Rows) -> Numbers:
    """SGDW against SGD of the same η, β and seed. At equal λ: the largest relative difference of
    NC0 and NC3 in the n pairs at β = 0 (plain), and NC3's largest ratio at 0.9 and λ = 0.05
    (equal). At ten times SGD's λ and β = 0.9, where 1/(1 − β) = 10, the
    ``shifted`` pairs: NC3's least and largest ratio."""
    sgd, sgdw = (rows.converged.query(f"optimizer == '{name}'") for name in ("sgd", "sgdw"))
    equal = _ratio(sgdw, sgd)
    tenfold = sgd.assign(weight_decay=(10 * sgd["weight_decay"]).round(12))
    shifted = _ratio(sgdw, tenfold).query("momentum == 0.9 and weight_decay > 0")["nc3"]
    off = (equal - 1).abs().groupby("momentum").agg(["max", "size"])
    found = {
        "plain_nc0": off.loc[0, ("nc0", "max")],
        "plain_nc3": off.loc[0, ("nc3", "max")],
        "n": off.loc[0, ("nc0", "size")],
        "equal": equal.query("momentum == 0.9 and weight_decay == @STRONG")["nc3"].max(),
        "least": shifted.min(),
        "most": shifted.max(),
        "shifted": len(shifted),
    }
    return Numbers(found, {"": pd.concat([sgd, sgdw])})


def _ratio(above: pd.DataFrame, below: pd.DataFrame) -> pd.DataFrame:
    """NC0 and NC3 of the runs above over those below, where both have a setting and seed."""
    keys = ["lr", "momentum", "weight_decay", "seed"]
    above, below = (runs.set_index(keys)[["nc0", "nc3"]] for runs in (above, below))
    return (above / below).dropna()


def singular_values(rows: Rows) -> Numbers:
    """Over the start: the median of AdamW's and SignumW's smallest singular value of W, and in how
    many runs it grew; the median of SGD's, Adam's and Signum's at λ = 0.05; and M's mean ones'
    least growth, all optimizers."""
    history = rows.history[rows.history["run_id"].isin(rows.converged["run_id"])]
    first, last = (history[history["epoch"] == at].set_index("run_id") for at in (0, EPOCHS))
    left = (last["w_sv_min"] / first["w_sv_min"]).groupby(last["optimizer"])
    strong = left.obj[last["weight_decay"] == STRONG].groupby(last["optimizer"])
    found = {name: left.median()[name] for name in ("adamw", "signumw")}
    decoupled = left.obj[last["optimizer"].isin(found)]
    found |= {"n": len(decoupled), "grew": (decoupled > 1).sum()}
    found |= {name: strong.median()[name] for name in ("sgd", "adam", "signum")}
    return Numbers(
        found | {"m": (last["m_sv_mean"] / first["m_sv_mean"]).min()}, {"": rows.converged}
    )


def nc4(rows: Rows) -> Numbers:
    """NC4's least and mean, and its rank correlation with NC1, NC2, NC3."""
    metrics = rows.converged[["nc1", "nc2", "nc3", "nc4"]]
    ranks = metrics.corr("spearman")["nc4"].drop("nc4").to_dict()
    least, mean = metrics["nc4"].agg(["min", "mean"])
    return Numbers(ranks | {"least": least, "mean": mean, "n": len(metrics)}, {"": rows.converged})


def partial_collapse(rows: Rows) -> Numbers:
    """AdamW's run with the least NC1: its NC0 to NC3 over the start, and that NC1 over Adam's
    least. Of n AdamW runs, how many have NC1 and NC2 below the rule's threshold and NC3 not, and
    how many below 0.2."""
    adamw, adam = (rows.converged.query(f"optimizer == '{name}'") for name in ("adamw", "adam"))
    found = figures.fraction_of_start(adamw).loc[adamw["nc1"].idxmin()].to_dict()
    for name, threshold in (("kind", rule.THRESHOLD), ("wide", 0.2)):
        found[name] = int((rule.below(adamw, threshold) == "NC1, NC2").sum())
    found |= {"beside": adamw["nc1"].min() / adam["nc1"].min(), "n": len(adamw)}
    return Numbers(found, {"": adamw, "beside": adam})


def regression(rows: Rows) -> Numbers:
    """As Table 5: NC3 = a + β log₁₀ NC0 by least squares, R² for each learning rate and for all;
    R² for all of NC1 and NC2 instead, and of NC3 on NC0 itself."""
    runs = rows.converged.assign(log=np.log10(rows.converged["nc0"]))
    r2 = lambda group, y="nc3", x="log": linregress(group[x], group[y]).rvalue ** 2  # noqa: E731
    by_lr = {f"r2_{lr:g}".replace(".", "_"): r2(group) for lr, group in runs.groupby("lr")}
    by_metric = {f"r2_{metric}": r2(runs, metric) for metric in ("nc1", "nc2", "nc3")}
    rates = {"low": min(by_lr.values()), "high": max(by_lr.values())}
    slope = linregress(runs["log"], runs["nc3"]).slope
    found = by_lr | by_metric | rates | {"plain": r2(runs, x="nc0"), "slope": slope, "n": len(runs)}
    return Numbers(found, {"": rows.converged})


def run_counts(rows: Rows) -> Numbers:
    """How many digits runs there are, how many converged, and what the paper's grids add up to."""
    runs, converged = len(rows.digits), len(rows.converged)
    found = {
        "runs": runs,
        "converged": converged,
        "share": converged / runs,
        "paper": 2 * 3 * sum(len(sweep.grid(name)) for name in sweep.GRIDS),  # networks, data
    }
    return Numbers(found, {"runs": rows.digits})


def as_many_steps(rows: Rows) -> Numbers:
    """Table 1's runs at its own number of steps: NC0 to NC3 and training accuracy at the end, by
    optimizer, NC0 at the start; and what ``papers_law`` finds."""
    runs = table_1.of_setting(rows.every)
    means = runs.groupby("optimizer")[[*figures.MAIN, "train_acc"]].mean().stack()
    found = {f"{name}_{metric}": value for (name, metric), value in means.items()}
    found["start"] = runs["nc0_init"].mean()
    return Numbers(papers_law() | found, {"": runs})


def walk(rows: Rows) -> Numbers:
    """From AdamW to Adam on ResNet9 and MNIST at λ = 0.05: by which factor NC0 and NC3 fall, the
    largest share that a tenth of the way has in it (in logarithms), that of the first tenth in NC2,
    and test accuracy at both ends; and what share of NC0 the way takes at the paper's λ."""
    setting = {"optimizer": "adam_mixed", "dataset": "mnist", "model": "resnet9"}
    runs = figures.of_setting(rows.every, **setting, epochs=50, width=1 / 8, train_size=2000)
    means = runs.groupby(["weight_decay", "coupled_share"])[["nc0", "nc2", "nc3", "test_acc"]]
    means = means.mean()
    strong, weak = means.loc[0.05], means["nc0"].loc[table_1.DECAY]
    steps = np.log(strong).diff().dropna()
    shares = steps / steps.sum()
    found = {f"{m}_falls": strong[m].iloc[0] / strong[m].iloc[-1] for m in ("nc0", "nc3")}
    found |= {f"{m}_most": shares[m].max() for m in ("nc0", "nc3")}
    found |= {"nc2_first": shares["nc2"].iloc[0], "little": 1 - weak.iloc[-1] / weak.iloc[0]}
    found |= {f"acc_{end:g}": strong["test_acc"].loc[end] for end in (0.0, 1.0)}
    return Numbers(found, {"": runs})


def exact_law(rows: Rows) -> Numbers:
    """NC0 at the end of every SGD and SGDW run, converged or not, against the exact law: the
    largest relative deviation where the law predicts more than 0.01."""
    runs = rows.digits.query("optimizer in ('sgd', 'sgdw') and status == 'ok'")
    law = runs["nc0_init"] * figures.exact_law(runs)
    off = (runs["nc0"] / law - 1).abs()[law > LAW_ABOVE]
    return Numbers({"off": off.max(), "seen": len(off), "n": len(runs)}, {"": runs})


def symmetry(rows: Rows) -> Numbers:
    """How digits runs of the optimizers beyond the paper's ended, with decay (see `ends`); the
    largest relative deviation from the exact law of float64 runs for which it predicts more than
    1e-6 (``off``), and of those between that and 1e-9 (``far``), and the number of both. NC0
    over its start, the least and the largest, with AdamW (λ = 5) in the hidden layers and SGD in
    the last one (``adamw_sgd``), and the other way round. Of AdamW at λ = 5 in all layers, medians
    of NC3, raw and centred, of NC2, and of the share of NC3² that is gauge."""
    runs = rows.small.assign(law=figures.exact_law(rows.small))
    left = runs["nc0"] / runs["nc0_init"]
    wide = runs["precision"].eq("float64") & (runs["law"] > figures.LAW_FROM)
    off, near = (left / runs["law"] - 1).abs()[wide], runs["law"][wide] > 1e-6
    found = {"off": off[near].max(), "far": off[~near].max(), "wide": len(off)}
    used = {"wide": runs[wide]}
    plain = figures.of_setting(runs, **six_grids.SETTING)
    decayed = plain[plain["weight_decay"] > 0]
    for name in sweep.BEYOND:
        own = decayed[decayed["optimizer"] == name]
        found |= {f"{name}_{k}": v for k, v in _ended(own).items()}
        used[name] = figures.converged(own)
    adamw = (runs["optimizer"] == "adamw") & (runs["weight_decay"] == 5) & (runs["lr"] == LR)
    at = {"adamw": adamw, "sgd": (runs["optimizer"] == "sgd") & (runs["weight_decay"] == STRONG)}
    for body, head in (("adamw", "sgd"), ("sgd", "adamw")):
        used[f"{body}_{head}"] = runs[at[body] & (runs["head_optimizer"] == head)]
        pair = left[used[f"{body}_{head}"].index]
        found |= {f"{body}_{head}_least": pair.min(), f"{body}_{head}_most": pair.max()}
        found[f"{body}_{head}_n"] = len(pair)
    same = plain[adamw[plain.index] & (plain["momentum"] == MOMENTUM)]
    same = same[same["nc3_centred"].notna()]
    share = 1 - (same["nc3_centred"] / same["nc3"]) ** 2
    middle = {name: same[name].median() for name in ("nc3", "nc3_centred", "nc2")}
    found |= middle | {"share": share.median(), "n": len(same)}
    return Numbers(found, used | {"share": same})


def ufm_orders(rows: Rows) -> Numbers:
    """Medians over the learning rates and seeds, AdamW over Adam and over SGD, at the largest λ at
    which all converged and at 5e-4: NC0 and NC3. And the λ = 1/(K√n) beyond which the mean loss is
    least at W = H = 0, here and with the paper's N."""
    groups = figures.converged(rows.ufm).groupby(["weight_decay", "optimizer"])
    of_each = rows.ufm.groupby(["lr", "seed"]).ngroups
    whole = groups.size().unstack().eq(of_each).all(axis=1)
    middle, samples = groups[["nc0", "nc3"]].median(), int(rows.ufm["train_size"].max())
    found = {"decay": whole[whole].index.max(), "n": len(rows.ufm), "samples": samples}
    for name, N in (("threshold", samples), ("papers_threshold", data.UFM_SAMPLES)):
        found[name] = 1 / np.sqrt(N * data.UFM_CLASSES)
    for place, decay in (("strong", found["decay"]), ("weak", 5e-4)):
        for other in ("adam", "sgd"):
            ratios = middle.loc[decay, "adamw"] / middle.loc[decay, other]
            found |= {f"{place}_{other}_{metric}": ratio for metric, ratio in ratios.items()}
    return Numbers(found, {"": figures.converged(rows.ufm)})


def papers_law() -> dict[str, float]:
    """NC0 of the paper's Fashion-MNIST runs by the exact law. In percent, its change in SGDW's row
    of Table 1; what the table prints for SGD over the law's NC0, from SGDW's start. Over the start:
    Figure 5's SGDW when the learning rate first falls, at the end (ratio), and at the end if it had
    not fallen; Figure 14's runs of 200 and 2,000 epochs at β = 0.9, λ = 5e-4."""
    figure_5 = (0.0679, 0.9, 5e-4, FASHION_STEPS, 200, True)
    ratio = theory.row_sum_ratio(*figure_5)
    of_sgd = theory.row_sum_ratio(*figure_5[:-1]) * table_1.PRINTED_NC0["sgdw"] / ratio
    figure_14 = [theory.row_sum_ratio(1e-3, 0.9, 5e-4, FASHION_STEPS, n) for n in (200, 2000)]
    return {
        "sgdw_1": 100 * (ratio - 1),
        "times": table_1.PRINTED_NC0["sgd"] / of_sgd,
        "ratio": ratio,
        "first": theory.row_sum_trajectory(FASHION_STEPS * (200 // 3), *figure_5),
        "constant": theory.row_sum_ratio(*figure_5, milestones=()),
        "short": figure_14[0],
        "long": figure_14[1],
    }


def sgd_proofs() -> dict[str, float]:
    """Theorem 3.1's bound after 1,000 steps with λη = 5e-4: at β = 0, and as β → 0; the law's rate
    over the bound's at β = 0.9. At β = 0.9 and λ = 0.05, Lemma E.6's 2λ/L, and by how much its
    equation's solution exceeds e^(−λt/L) by t = 60."""
    beta, decay, times = 0.9, 0.05, np.linspace(0, 60, 2000)
    zero, near = theory.theorem31_bound(1000, 0.01, [0.0, 1e-300], decay)
    bound = -np.log(theory.theorem31_bound(1, 0.01, beta, decay))
    log = -np.log(beta)
    excess = np.abs(theory.lemma_e6_solution(times, beta, decay)) / np.exp(-decay * times / log)
    return {
        "zero": zero,
        "near": near,
        "times": theory.row_sum_decay_rate(0.01, beta, decay) / bound,
        "condition": 2 * decay / log,
        "excess": excess.max(),
    }


def sign_descent() -> dict[str, float]:
    """Coupled SignGD. With the paper's gradient at K = 10, η = λ = 1e-3: b at its top and where a
    turns, and the share of steps between on which α rises. At η = 3e-3 and λ = 1e-3, for K = 3 and
    K = 100: the largest α of the tail over K³η² and over (K − 2)²η²."""
    K, lr, decay = 10, 1e-3, 1e-3
    steps = int(1.1 * theory.turning_points(K, lr, decay, exact=False).fall_ends)
    a, b = theory.simulate_signgd_scalars(K, lr, decay, steps, exact=False)
    top, turn = int(np.argmax(b)), int(np.argmax(np.diff(a) < 0))
    rises = np.diff(((a - (K - 1) * b) ** 2)[top : turn + 1]) > 0
    found = {"top": b[top], "turn": b[turn], "rises": rises.mean()}
    lr = 3e-3
    for K in (3, 100):
        steps = int(1.2 * theory.turning_points(K, lr, decay).fall_ends) + 400
        level = theory.simulate_signgd(K, lr, decay, steps)[-200:].max()
        found[f"cubed_{K}"] = level / (K**3 * lr**2)
        found[f"squared_{K}"] = level / ((K - 2) ** 2 * lr**2)
    return found


CLOSED_FORMS = {form.__name__: form for form in (papers_law, sgd_proofs, sign_descent)}
OF_RUNS = {
    measure.__name__: measure
    for measure in (
        ends, best, equal_decay, momentum, sgd_pairs, singular_values, nc4, partial_collapse,
        regression, run_counts, as_many_steps, walk, exact_law, symmetry, ufm_orders,
    )
}  # fmt: skip
MEASURES = (*OF_RUNS, *CLOSED_FORMS)


def take(name: str, rows: Rows) -> Numbers:
    """The numbers of a measure; none if the stored runs are too few for them."""
    if name in CLOSED_FORMS:
        return Numbers(CLOSED_FORMS[name]())
    try:
        return Numbers({}) if rows.missing else OF_RUNS[name](rows)
    except (LookupError, ArithmeticError, ValueError):  # no run with some setting
        return Numbers({})
