"""Numbers for the claims page, from stored runs or closed forms.

A measure takes :class:`Rows` and returns named numbers; a claim names its measure in
``measured: NAME`` and its text shows them as ``{number:.2f}``. Unless it says otherwise, a measure
looks at the converged runs (at least 99 % training accuracy) of the six digits sweeps, of all seeds
whose grids are complete.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from ncbook import data, figures, store, sweep, theory
from ncbook.metrics import rule
from ncbook.pages import six_grids

EPOCHS = six_grids.SETTING["epochs"]
BATCH_SIZE = 128  # of the digits runs and of the paper's
LAW_ABOVE = 1e-2  # NC0 by the law from which rounding plays no part
STRONG = 0.05  # the weight decay of the paper's best SGD, SGDW and Adam runs (Table 4)
FASHION_STEPS = 469  # 60,000 images in batches of 128
PAIRS = (("adam", "adamw"), ("signum", "signumw"))
NETWORKS = ("resnet9", "vgg9")  # the paper's
TORCH_DECAY = 0.01  # of AdamW, if none is given

Numbers = dict[str, float]


@dataclass(frozen=True)
class Rows:
    """The stored runs that measures read: the digits sweeps, their epochs, the UFM sweep; which of
    the paper's optimizers have no digits runs, with ``ufm`` if there are no UFM runs; all runs of
    the paper's networks, of any width and data; and the digits runs of AdamW at torch's decay."""

    digits: pd.DataFrame
    history: pd.DataFrame
    ufm: pd.DataFrame
    missing: tuple[str, ...] = ()
    networks: pd.DataFrame = field(default_factory=pd.DataFrame)
    fixed: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def converged(self) -> pd.DataFrame:
        """The digits runs that did not diverge and reached 99 % training accuracy."""
        return figures.converged(self.digits)


def read_rows(results: str | Path | None = None) -> Rows:
    """The rows that the measures need.

    Args:
        results: the results folder (see ``store.results_dir``).
    """
    stored = six_grids.stored(results)
    runs = six_grids.complete(stored)
    ufm = store.load_runs(results, dataset=data.UFM, seed=0)
    present = set(runs["optimizer"]) | ({data.UFM} if len(ufm) else set())
    missing = tuple(name for name in (*sweep.GRIDS, data.UFM) if name not in present)
    history = store.load_history(results, run_id=list(runs["run_id"]))
    samples = ufm["train_size"].fillna(data.UFM_SAMPLES)
    networks = store.load_runs(results, model=list(NETWORKS))
    fixed = stored[(stored["optimizer"] == "adamw") & (stored["weight_decay"] == TORCH_DECAY)]
    return Rows(runs, history, ufm[samples == samples.max()], missing, networks, fixed)


def ufm_samples(ufm: pd.DataFrame) -> int:
    """N of the UFM runs, the largest one stored."""
    return int(ufm["train_size"].fillna(data.UFM_SAMPLES).max())


# ------------------------------------------------------------------------------- the sweeps


def least_nc3(rows: Rows) -> Numbers:
    """The least NC3 of each optimizer with weight decay, and the decoupled ones' over the coupled
    ones'."""
    decayed = rows.converged.query("weight_decay > 0")
    least = decayed.groupby("optimizer")["nc3"].min().to_dict()
    ratios = {f"{w}_over_{name}": least[w] / least[name] for name, w in PAIRS}
    return least | ratios | {"n": len(decayed)}


def equal_decay(rows: Rows) -> Numbers:
    """Mean NC0 and NC3 with decoupled over coupled decay, at each positive λ of both grids: the
    least and the largest ratio; and the decoupled mean at the largest λ of its own grid over the
    coupled one at 0.05."""
    means = rows.converged.groupby(["optimizer", "weight_decay"])[["nc0", "nc3"]].mean()
    found = {}
    for coupled, decoupled in PAIRS:
        ratio = (means.loc[decoupled] / means.loc[coupled]).query("weight_decay > 0").dropna()
        last = means.loc[decoupled].iloc[-1] / means.loc[coupled].loc[STRONG]
        for metric in ("nc0", "nc3"):
            found[f"{coupled}_{metric}_least"] = ratio[metric].min()
            found[f"{coupled}_{metric}_most"] = ratio[metric].max()
            found[f"{coupled}_{metric}_last"] = last[metric]
    return found


def collapsed(rows: Rows) -> Numbers:
    """How many converged runs with decay collapsed, by the rule, of how many: of each optimizer on
    digits; of Adam and Signum, and of AdamW and SignumW, on the paper's networks; of the latter, of
    any optimizer and decay, on CIFAR-10 (JPEG), and their least NC3. The best SGDW run's NC3."""
    networks = figures.converged(rows.networks)
    decayed = networks[networks["weight_decay"] > 0]
    groups = dict(iter(rows.converged.query("weight_decay > 0").groupby("optimizer")))
    best = groups["sgdw"]["nc3"].min()
    for name, pair in (("coupled", 0), ("decoupled", 1)):
        groups[f"networks_{name}"] = decayed[decayed["optimizer"].isin([p[pair] for p in PAIRS])]
    groups["cifar"] = networks[networks["dataset"].str.contains("cifar10")]
    found = {name: int(rule.collapsed(runs).sum()) for name, runs in groups.items()}
    found |= {f"{name}_n": len(runs) for name, runs in groups.items()}
    return found | {"cifar_nc3": groups["cifar"]["nc3"].min(), "sgdw_nc3": best}


def fixed_adamw(rows: Rows) -> Numbers:
    """AdamW on digits at torch's decay of 0.01, and as written: how many runs, how many of them
    converged, how many of these collapsed, and their least NC3."""
    found, written = {}, rows.digits.query("optimizer == 'adamw'")
    for name, runs in (("fixed", rows.fixed), ("written", written)):
        good = figures.converged(runs)
        counts = {"runs": len(runs), "n": len(good), "so": int(rule.collapsed(good).sum())}
        found |= {f"{name}_{key}": v for key, v in (counts | {"nc3": good["nc3"].min()}).items()}
    return found


def networks_nc0(rows: Rows) -> Numbers:
    """NC0 at the end over the start under AdamW and SignumW: the least of the digits runs; of the
    paper's networks the least with weight decay, and how many of AdamW's end below their start."""
    digits = _relative(rows.converged).groupby("optimizer")["nc0"].min()
    runs = _relative(figures.converged(rows.networks)).query("weight_decay > 0")
    adamw, signumw = (runs.loc[runs["optimizer"] == name, "nc0"] for _, name in PAIRS)
    found = {"networks_adamw": adamw.min(), "networks_signumw": signumw.min()}
    found |= {"fell": int((adamw < 1).sum()), "n": len(adamw)}
    return found | {name: digits[name] for _, name in PAIRS}


def without_decay(rows: Rows) -> Numbers:
    """NC3 over the start: the least without weight decay, and with it; NC0 over the start: the
    least without. How many of the runs without decay collapsed."""
    runs = _relative(rows.converged)
    with_decay = runs["weight_decay"] > 0
    free, decayed = runs[~with_decay], runs[with_decay]
    return {
        "free_nc0": free["nc0"].min(),
        "free_nc3": free["nc3"].min(),
        "decayed_nc3": decayed["nc3"].min(),
        "n": len(free),
        "so": int(rule.collapsed(rows.converged)[~with_decay].sum()),
    }


def momentum(rows: Rows) -> Numbers:
    """SGD with decay, one step up in momentum at a time, each seed: how often NC0 and NC3 fall
    below β*, and how often NC0 does beyond it."""
    sgd = rows.converged.query("optimizer == 'sgd' and weight_decay > 0")
    found = dict(below=0, below_nc0=0, below_nc3=0, beyond=0, beyond_nc0=0)
    for (lr, decay, _), group in sgd.groupby(["lr", "weight_decay", "seed"]):
        ordered = group.sort_values("momentum")
        falls = ordered[["nc0", "nc3"]].diff().iloc[1:] < 0
        below = ordered["momentum"].iloc[1:] < theory.critical_momentum(lr, decay)
        found["below"] += below.sum()
        found["below_nc0"] += falls["nc0"][below].sum()
        found["below_nc3"] += falls["nc3"][below].sum()
        found["beyond"] += (~below).sum()
        found["beyond_nc0"] += falls["nc0"][~below].sum()
    return {name: int(count) for name, count in found.items()}


def vanilla_sgd(rows: Rows) -> Numbers:
    """SGD against SGDW at equal settings and seeds: the largest relative difference of NC0 and NC3
    at momentum 0, and at 0.9."""
    keys = ["lr", "momentum", "weight_decay", "seed"]
    runs = {n: g.set_index(keys)[["nc0", "nc3"]] for n, g in rows.converged.groupby("optimizer")}
    off = (runs["sgdw"] / runs["sgd"] - 1).abs().dropna()  # settings that both converged at
    most = {name: off.xs(value, level="momentum") for name, value in (("plain", 0), ("heavy", 0.9))}
    found = {f"{n}_{m}": most[n][m].max() for n in most for m in ("nc0", "nc3")}
    return found | {"n": len(most["plain"])}


def shifted_sgdw(rows: Rows) -> Numbers:
    """SGDW at ten times λ over SGD of the same seed, both at momentum 0.9, where 1/(1 − β) = 10:
    NC3's least and largest ratio; and at equal λ = 0.05 the largest."""
    runs = rows.converged.query("momentum == 0.9")
    keys = ["weight_decay", "lr", "seed"]
    nc3 = {n: g.set_index(keys)["nc3"] for n, g in runs.groupby("optimizer")}
    ratios = [
        nc3["sgdw"][key] / value
        for (decay, *rest), value in nc3["sgd"].items()
        if decay > 0 and (key := (round(10 * decay, 12), *rest)) in nc3["sgdw"].index
    ]
    equal = nc3["sgdw"].xs(STRONG) / nc3["sgd"].xs(STRONG)
    return {"least": min(ratios), "most": max(ratios), "n": len(ratios), "equal": equal.max()}


def singular_values(rows: Rows) -> Numbers:
    """Over the start: the least that AdamW's and SignumW's smallest singular value of W ends at,
    the median of Adam's and Signum's at λ = 0.05, and M's mean ones' least growth, all
    optimizers."""
    history = rows.history[rows.history["run_id"].isin(rows.converged["run_id"])]
    ends = {epoch: group.set_index("run_id") for epoch, group in history.groupby("epoch")}
    first, last = ends[0], ends[EPOCHS]
    smallest = last["w_sv_min"] / first["w_sv_min"]
    strong = last["weight_decay"] == STRONG
    found = {n: smallest[last["optimizer"] == n].min() for n in ("adamw", "signumw")}
    for name in ("sgd", "adam", "signum"):
        found[name] = smallest[strong & (last["optimizer"] == name)].median()
    return found | {"m": (last["m_sv_mean"] / first["m_sv_mean"]).min()}


def nc4(rows: Rows) -> Numbers:
    """NC4's least and mean, and its rank correlation with NC1, NC2, NC3."""
    runs = rows.converged
    ranks = {f"nc{i}": stats.spearmanr(runs["nc4"], runs[f"nc{i}"]).statistic for i in (1, 2, 3)}
    return ranks | {"least": runs["nc4"].min(), "mean": runs["nc4"].mean(), "n": len(runs)}


def partial_collapse(rows: Rows) -> Numbers:
    """AdamW's run with the least NC1: its NC0 to NC3 over the start, and that NC1 over Adam's
    least. Of n AdamW runs, how many have NC1 and NC2 below the rule's threshold and NC3 not, and
    how many below 0.2."""
    runs = rows.converged
    least = runs.groupby("optimizer")["nc1"].idxmin()
    run = _relative(runs).loc[least["adamw"]]
    beside = runs["nc1"][least["adamw"]] / runs["nc1"][least["adam"]]
    adamw = runs[runs["optimizer"] == "adamw"]
    found = {f"nc{i}": run[f"nc{i}"] for i in range(4)} | {"beside": beside, "n": len(adamw)}
    for name, threshold in (("kind", rule.THRESHOLD), ("wide", 0.2)):
        found[name] = int((rule.below(adamw, threshold) == "NC1, NC2").sum())
    return found


def regression(rows: Rows) -> Numbers:
    """As Table 5: NC3 = a + β log₁₀ NC0 by least squares, R² for each learning rate and for all;
    R² for all of NC1 and NC2 instead, and of NC3 on NC0 itself."""
    runs = rows.converged
    by_lr = {f"r2_{lr:g}": _r2(group, "nc3") for lr, group in runs.groupby("lr")}
    found = {f"r2_{metric}": _r2(runs, metric) for metric in ("nc1", "nc2", "nc3")}
    plain = stats.linregress(runs["nc0"], runs["nc3"])
    slope = stats.linregress(np.log10(runs["nc0"]), runs["nc3"]).slope
    rates = {"low": min(by_lr.values()), "high": max(by_lr.values())}
    named = {name.replace(".", "_"): value for name, value in by_lr.items()}
    return named | found | rates | {"plain": plain.rvalue**2, "slope": slope, "n": len(runs)}


def best_settings(rows: Rows) -> dict[str, str]:
    """As Table 4: the settings of each optimizer's least NC3, in words."""
    runs = rows.converged
    best = runs.loc[runs.groupby("optimizer")["nc3"].idxmin()].set_index("optimizer")
    return {n: f"η {r.lr:g}, β {r.momentum:g}, λ {r.weight_decay:g}" for n, r in best.iterrows()}


def best_metrics(rows: Rows) -> Numbers:
    """As Table 2: NC0 and NC3 of each optimizer's least-NC3 run, over the start."""
    runs = rows.converged
    best = _relative(runs.loc[runs.groupby("optimizer")["nc3"].idxmin()]).set_index("optimizer")
    return {f"{name}_{m}": best.loc[name, m] for name in best.index for m in ("nc0", "nc3")}


def run_counts(rows: Rows) -> Numbers:
    """How many digits runs there are, how many converged, what the paper's grids add up to, and the
    steps of a run here and there."""
    points = sum(len(sweep.grid(name)) for name in sweep.GRIDS)
    settings = 2 * 3  # networks × data sets (Table 3)
    return {
        "runs": len(rows.digits),
        "converged": len(rows.converged),
        "share": len(rows.converged) / len(rows.digits),
        "paper": settings * points,
        "steps": EPOCHS * -(-len(data.load("digits").train_y) // BATCH_SIZE),
        "paper_steps": EPOCHS * FASHION_STEPS,
    }


def exact_law(rows: Rows) -> Numbers:
    """NC0 at the end of every SGD and SGDW run, converged or not, against the exact law: the
    largest relative deviation where the law predicts more than 0.01."""
    runs = rows.digits.query("optimizer in ('sgd', 'sgdw') and status == 'ok'")
    law = runs["nc0_init"] * figures.exact_law(runs)
    seen = law > LAW_ABOVE
    off = (runs["nc0"] / law - 1).abs()[seen]
    return {"off": off.max(), "seen": int(seen.sum()), "n": len(runs)}


def ufm_orders(rows: Rows) -> Numbers:
    """Medians over the learning rates, AdamW over Adam and over SGD, at the largest λ at which all
    converged and at 5e-4: NC0 and NC3. And the λ = 1/(K√n) beyond which the mean loss is least at
    W = H = 0, here and with the paper's N."""
    runs = figures.converged(rows.ufm)
    counts = runs.pivot_table(index="weight_decay", columns="optimizer", values="nc0", aggfunc=len)
    strongest = counts[counts.eq(rows.ufm["lr"].nunique()).all(axis=1)].index.max()
    middle = runs.groupby(["optimizer", "weight_decay"])[["nc0", "nc3"]].median()
    samples = ufm_samples(rows.ufm)
    found = {"decay": strongest, "n": len(rows.ufm), "samples": samples}
    for name, N in (("threshold", samples), ("papers_threshold", data.UFM_SAMPLES)):
        found[name] = 1 / np.sqrt(N * data.UFM_CLASSES)
    for place, decay in (("strong", strongest), ("weak", 5e-4)):
        for other in ("adam", "sgd"):
            for metric in ("nc0", "nc3"):
                ratio = middle.loc[("adamw", decay), metric] / middle.loc[(other, decay), metric]
                found[f"{place}_{other}_{metric}"] = ratio
    return found


# ------------------------------------------------------------------------------ closed forms


def printed_sgdw(_: Rows) -> Numbers:
    """The law's change of NC0, in percent, for the SGD and SGDW rows of Tables 1 and 2."""
    lrs, betas = np.array([0.0679, 0.0679, 0.01, 0.0679]), np.array([0.9, 0.9, 0.9, 0.5])
    decays, decoupled = np.array([5e-4, 5e-4, 0.05, 0.05]), np.array([0.0, 1.0, 0.0, 1.0])
    ratios = theory.row_sum_ratio(lrs, betas, decays, FASHION_STEPS, 200, decoupled)
    names = ("sgd_1", "sgdw_1", "sgd_2", "sgdw_2")
    changes = dict(zip(names, 100 * (ratios - 1), strict=True))
    return changes | {"ratio": ratios[1]}


def sgdw_phases(_: Rows) -> Numbers:
    """Figure 5's SGDW by the law: NC0 over the start when the learning rate first falls, and at the
    end; and at the end if it had not fallen."""
    setting = (0.0679, 0.9, 5e-4, FASHION_STEPS, 200, True)
    first = FASHION_STEPS * (200 // 3)
    return {
        "first": theory.row_sum_trajectory(first, *setting),
        "end": theory.row_sum_ratio(*setting),
        "constant": theory.row_sum_ratio(*setting, milestones=()),
    }


def longer_runs(_: Rows) -> Numbers:
    """Figure 14's runs by the law: NC0 over the start after 200 and 2,000 epochs, at β = 0.9,
    λ = 5e-4, and the least over its two runs without decay."""
    after = {n: theory.row_sum_ratio(1e-3, 0.9, 5e-4, FASHION_STEPS, n) for n in (200, 2000)}
    free = theory.row_sum_ratio(1e-3, [0.0, 0.9], 0.0, FASHION_STEPS, 2000)
    return {"short": after[200], "long": after[2000], "free": free.min()}


def loose_bound(_: Rows) -> Numbers:
    """Theorem 3.1's bound after 1,000 steps with λη = 5e-4: at β = 0, and as β → 0; the law's rate
    over the bound's at β = 0.9."""
    zero, near = theory.theorem31_bound(1000, 0.01, [0.0, 1e-300], 0.05)
    rate = theory.row_sum_decay_rate(0.01, 0.9, 0.05)
    bound = -np.log(theory.theorem31_bound(1, 0.01, 0.9, 0.05))
    return {"zero": zero, "near": near, "times": rate / bound}


def lemma_e6(_: Rows) -> Numbers:
    """By how much the solution of Lemma E.6's equation exceeds e^(−λt/L) by t = 60, at β = 0.9 and
    λ = 0.05; and the lemma's 2λ/L there."""
    beta, decay, time = 0.9, 0.05, np.linspace(0, 60, 2000)
    log = -np.log(beta)
    excess = np.abs(theory.lemma_e6_solution(time, beta, decay)) / np.exp(-decay * time / log)
    return {"excess": excess.max(), "condition": 2 * decay / log}


def falling_b(_: Rows) -> Numbers:
    """Coupled SignGD with the paper's gradient at K = 10, η = λ = 1e-3: b at its top and where a
    turns, and the share of steps between on which α rises."""
    K, lr, decay = 10, 1e-3, 1e-3
    steps = int(1.1 * theory.turning_points(K, lr, decay, exact=False).fall_ends)
    a, b = theory.simulate_signgd_scalars(K, lr, decay, steps, exact=False)
    top, turn = int(np.argmax(b)), int(np.argmax(np.diff(a) < 0))
    rises = np.diff(((a - (K - 1) * b) ** 2)[top : turn + 1]) > 0
    return {"top": b[top], "turn": b[turn], "rises": rises.mean()}


def tail_level(_: Rows) -> Numbers:
    """The largest α of coupled SignGD's tail over K³η² and over (K − 2)²η², at η = 3e-3 and
    λ = 1e-3, for K = 3 and K = 100."""
    found, lr, decay = {}, 3e-3, 1e-3
    for K in (3, 100):
        steps = int(1.2 * theory.turning_points(K, lr, decay).fall_ends) + 400
        level = theory.simulate_signgd(K, lr, decay, steps)[-200:].max()
        found[f"cubed_{K}"] = level / (K**3 * lr**2)
        found[f"squared_{K}"] = level / ((K - 2) ** 2 * lr**2)
    return found


MEASURES: dict[str, Callable[[Rows], dict]] = {
    measure.__name__: measure
    for measure in (
        least_nc3, equal_decay, collapsed, fixed_adamw, networks_nc0, without_decay, momentum,
        vanilla_sgd, shifted_sgdw, singular_values, nc4, partial_collapse, regression,
        best_settings, best_metrics, run_counts, exact_law, ufm_orders, printed_sgdw, sgdw_phases,
        longer_runs, loose_bound, lemma_e6, falling_b, tail_level,
    )
}  # fmt: skip


CLOSED_FORMS = {"printed_sgdw", "sgdw_phases", "longer_runs", "loose_bound", "lemma_e6"}
CLOSED_FORMS |= {"falling_b", "tail_level"}  # these need no run


def take(name: str, rows: Rows) -> dict | None:
    """The numbers of a measure; None if the stored runs are too few for them."""
    if rows.missing and name not in CLOSED_FORMS:
        return None
    try:
        numbers = MEASURES[name](rows)
    except (LookupError, ArithmeticError, ValueError):  # no run with some setting
        return None
    lost = [v for v in numbers.values() if not isinstance(v, str) and not np.isfinite(v)]
    return None if lost else numbers


# -------------------------------------------------------------------------------- pieces


def _relative(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with NC0 to NC3 over their values at the start."""
    return runs.assign(**{f"nc{i}": runs[f"nc{i}"] / runs[f"nc{i}_init"] for i in range(4)})


def _r2(runs: pd.DataFrame, metric: str) -> float:
    return stats.linregress(np.log10(runs["nc0"]), runs[metric]).rvalue ** 2
