"""The claims page: nothing numbered is missing, all evidence is there, and what the verdicts take
from stored runs is so."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ncbook import figures, store, sweep, theory
from ncbook.metrics import rule
from ncbook.pages import claims
from ncbook.pages.claims import measures

ROOT = Path(__file__).parents[1]
FILE = ROOT / "book" / "claims.yml"
PAGE = ROOT / "book" / "claims.md"
RESULTS = ROOT / "book" / "results"

# The paper's numbered statements, in its order; then those of Mixon, Parshall and Pi.
PAPER = ["Proposition 2.1", "Theorem 3.1", "Remark 3.2", "Theorem 3.3", "Theorem 3.4"]
PAPER += ["Theorem C.1", "Theorem E.1", "Theorem E.2", "Theorem E.3"]
PAPER += ["Lemma E.4", "Lemma E.5", "Lemma E.6"]
PAPER += [f"Equation {number}" for number in range(2, 13)]
PAPER += [f"Figure {number}" for number in range(1, 46)]
PAPER += [f"Table {number}" for number in range(1, 6)]
MIXON = ["Lemma 1", "Theorem 2", "Theorem 3", "Lemma 4", "Figure 1", "Figure 2"]
# Claims of the text with no number of their own.
PLACES = ["contribution 1", "contribution 2", "contribution 3 (SGD)", "contribution 3 (coupled)"]
PLACES += ["contribution 3 (decoupled)", "Section 3.4", "Section 4.1", "Section 4.2", "Section 4.3"]
PLACES += ["Section 4.5 (transformers)", "Section 4.5 (other optimizers)"]
PLACES += [f"Appendix D.4.{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
def all_claims():
    return claims.load(FILE)


@pytest.fixture(scope="module")
def rows():
    return claims.read_rows(RESULTS)


@pytest.fixture(scope="module")
def numbers(rows):
    return {name: claims.take(name, rows) for name in claims.MEASURES}


# ------------------------------------------------------------------ the file is whole


NUMBER = r"(?:[A-E]\.)?\d+(?:\.\d+)*"
STATEMENT = re.compile(
    r"\b(Proposition|Theorem|Lemma|Remark|Figure|Table|Equation)s? "
    rf"({NUMBER}(?:(?:–|, | and ){NUMBER})*)"
)


def statements(source):
    """The numbered statements that a source names."""
    for kind, listed in STATEMENT.findall(source):
        for part in re.split(r", | and ", listed):
            first, _, last = part.partition("–")
            numbers = range(int(first), int(last) + 1) if last else [first]
            yield from (f"{kind} {number}" for number in numbers)


def covered(some_claims):
    return {found for claim in some_claims for found in statements(claim.source)}


def sections(some_claims):
    return list(dict.fromkeys(claim.section for claim in some_claims))


def names_in(file):
    """The tests of a test file, or the headings of a notebook's source."""
    source = (ROOT / file).read_text(encoding="utf-8")
    if file.startswith("tests/"):
        return re.findall(r"^def (test_\w+)", source, re.M)
    cells = [cell for cell in source.split("\n# %%") if "[markdown]" in cell.split("\n")[0]]
    return re.findall(r"^# #{1,6} (.+?)\s*$", "\n".join(cells), re.M)


def test_every_numbered_statement_has_a_row(all_claims):
    mixon = [claim for claim in all_claims if claim.source.startswith("Mixon")]
    assert covered(mixon) == set(MIXON)
    assert covered([claim for claim in all_claims if claim not in mixon]) == set(PAPER)


@pytest.mark.parametrize("place", PLACES)
def test_claims_without_a_number_have_a_row(all_claims, place):
    assert any(place in claim.source for claim in all_claims)


def test_every_claim_is_whole(all_claims):
    assert len({claim.id for claim in all_claims}) == len(all_claims)
    for claim in all_claims:
        assert claim.verdict in claims.VERDICTS, claim.id
        assert claim.measured in (None, *claims.MEASURES), claim.id
        assert bool(re.search(r"{\w", claim.why)) == bool(claim.measured), claim.id
        assert {*claim.known} <= {*claims.GROUNDS}, claim.id
        assert claim.known or claim.verdict == claims.NOT_RUN, claim.id
        assert not claim.scope, claim.id  # which is computed
        if claim.verdict == claims.NOT_RUN:
            assert claim.why.startswith("Needs "), claim.id
        else:
            assert claim.evidence, claim.id
        for cited in claim.evidence:
            assert re.fullmatch(r"tests/\w+\.py::test_\w+|notebooks/\w+\.py#.+", cited), claim.id


def test_all_evidence_is_there(all_claims):
    for cited in {item for claim in all_claims for item in claim.evidence}:
        file, _, name = re.split("(::|#)", cited, maxsplit=1)
        assert names_in(file).count(name) == 1, cited


def test_statements_are_read_from_a_source():
    read = "Figures 6 and 16; Appendix D.4.3; Equations 5 and 9–11; Theorem E.1 (proof, eq. 15)"
    wanted = ["Figure 6", "Figure 16", *(f"Equation {n}" for n in (5, 9, 10, 11)), "Theorem E.1"]
    assert list(statements(read)) == wanted


def test_every_measure_is_used_and_every_text_filled(all_claims, rows):
    assert {claim.measured for claim in all_claims} - {None} == set(claims.MEASURES)
    filled = claims.fill(all_claims, rows)
    assert not any(re.search(r"[{}]|\bnan\b|\binf\b", claim.why) for claim in filled)


def test_what_is_measured_has_a_scope_and_nothing_else_has(all_claims, rows):
    for claim in claims.fill(all_claims, rows):
        if claim.scope:
            assert {"measured", "exact"} & {*claim.known}, claim.id
        else:
            assert "measured" not in claim.known, claim.id


def test_the_page_shows_every_section_once_and_in_order(all_claims):
    source = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r'claims\.table\(entries, "(.+)"\)', source)
    assert shown == sections(all_claims)
    assert [name for name in re.findall("^## (.+)$", source, re.M) if name in shown] == shown


def test_chapters_that_are_linked_are_in_the_book(all_claims):
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    cited = {item.split(".py")[0] for c in all_claims for item in c.evidence if "#" in item}
    files = re.findall(r"file: (\S+)", toc)
    assert "book/claims" not in files or cited <= set(files)


GOOD = dict(id="a", section="S", source="Figure 1", claim="It falls.", verdict="confirmed")
GOOD |= dict(why="It does.", evidence=["tests/test_claims.py::test_all_evidence_is_there"])


def written(tmp_path, *changes):
    """A file of claims, each GOOD with some changes; None takes a field away."""
    entries = [{k: v for k, v in (GOOD | change).items() if v is not None} for change in changes]
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump(entries, allow_unicode=True), encoding="utf-8")
    return path


def test_without_the_runs_the_page_says_so_and_has_no_number_of_theirs(
    tmp_path, all_claims, monkeypatch
):
    none = claims.read_rows(tmp_path)
    assert none.missing == (*sweep.GRIDS, "ufm")
    filled = claims.fill(all_claims, none)
    without = {new.measured for new in filled if new.why == claims.UNMEASURED}
    assert without == set(measures.OF_RUNS)
    assert not any(re.search(r"[{}]|\bnan\b|\binf\b", claim.why) for claim in filled)
    shown = []
    monkeypatch.setattr(claims, "display", lambda words: shown.append(words.data))
    claims.tell_missing(none)
    (words,) = shown
    assert "lacks the runs of: sgd, sgdw, adam, adamw, signum, signumw, ufm" in words
    assert words.count("papermill notebooks/sweep.ipynb") == 2


def test_measures_of_too_few_runs_give_no_numbers(all_claims, rows):
    few = dataclasses.replace(rows, digits=rows.digits[rows.digits["weight_decay"] == 0])
    words = {claim.measured: claim.why for claim in claims.fill(all_claims, few) if claim.measured}
    assert words["equal_decay"] == claims.UNMEASURED
    assert words["sgd_proofs"] != claims.UNMEASURED
    assert not any(re.search(r"\bnan\b|\binf\b", why) for why in words.values())


def test_of_a_full_store_nothing_is_missing(all_claims, rows, monkeypatch):
    monkeypatch.setattr(claims, "display", pytest.fail)
    claims.tell_missing(rows)
    assert all(claim.why != claims.UNMEASURED for claim in claims.fill(all_claims, rows))


# ------------------------------------------------------------------ the tables


def test_counts_add_up(all_claims):
    known = claims.grounds_table(all_claims)
    for word in claims.GROUNDS:
        number = re.search(f">{word}</th><td>(\\d+)</td>", known)[1]
        assert int(number) == sum(word in claim.known for claim in all_claims)
    html = claims.verdict_table(all_claims)
    for word in claims.VERDICTS:
        number = re.search(f">{word}</span></th><td>(\\d+)</td>", html)[1]
        assert int(number) == sum(claim.verdict == word for claim in all_claims)
    for section in sections(all_claims):
        tally = re.search("<p.*?>(\\d+) rows: (.*?)\\.</p>", claims.table(all_claims, section))
        chosen = sum(claim.section == section for claim in all_claims)
        assert int(tally[1]) == sum(map(int, re.findall(r"\d+", tally[2]))) == chosen


def test_a_row_links_chapters_names_tests_and_escapes(tmp_path):
    change = {
        "claim": "λ < 1 & β",
        "evidence": [*GOOD["evidence"], "notebooks/sweep.py#The best run"],
    }
    html = claims.table(claims.load(written(tmp_path, change)), "S")
    assert '<a href="../notebooks/sweep.html#the-best-run">The best run</a>' in html
    assert f"<code>{GOOD['evidence'][0]}</code>" in html.replace("<wbr>", "")
    assert "λ &lt; 1 &amp; β" in html
    assert html.index("The best run") < html.index("<code>")  # chapters first
    assert 'id="claim-a"' in html


# ------------------------------------------------------------------ the scope


def scope_of(claim_id, all_claims, rows):
    (claim,) = [claim for claim in claims.fill(all_claims, rows) if claim.id == claim_id]
    return list(claim.scope)


def test_a_scope_counts_the_runs_of_the_numbers_that_the_text_has(all_claims, rows):
    runs = figures.converged(rows.digits)
    once = runs[(runs["weight_decay"] > 0) | runs["optimizer"].isin(["sgd", "adam", "signum"])]
    (line,) = scope_of("contribution-1-decay", all_claims, rows)
    assert line == f"MLP, digits, 200 epochs, seeds 0 to 4, n = {len(once):,}"
    some = dataclasses.replace(rows, digits=rows.digits[rows.digits["seed"] < 2])
    (line,) = scope_of("contribution-1-decay", all_claims, some)
    assert line.startswith("MLP, digits, 200 epochs, seeds 0, 1, n = ")


def test_a_measure_gives_the_runs_of_the_numbers_that_are_asked_for(rows):
    found = claims.take("ends", rows)
    adamw = found.runs_of(["adamw_n", "adamw_nc3"])
    assert set(adamw["optimizer"]) == {"adamw"}
    assert len(adamw) == found["adamw_n"]
    both = found.runs_of(["adamw_n", "all_adamw_n"])
    assert len(both) == found["all_adamw_n"] > len(adamw)  # each run once


def test_a_setting_selects_its_converged_runs_alone(rows):
    runs = rows.select({"optimizer": ["adam", "adamw"], "epochs": 2000})
    assert set(runs["optimizer"]) == {"adam", "adamw"}
    assert set(runs["epochs"]) == {2000}
    assert runs["train_acc"].min() >= rule.LEARNED
    assert rows.select({"dataset": "digits", "model": "vgg9"}).empty


def test_scopes_of_several_networks_and_of_none():
    made = dict(epochs=[50, 100, 50], seed=[0, 2, 1], width=[1 / 8, 1 / 8, 1.0])
    made |= dict(dataset=["mnist", "mnist", "<b>"], model=["vit", "vit", "mlp"])
    made |= dict(train_size=[1000, 1000, None], depth=[2, 2, None])
    assert claims.scope.lines(pd.DataFrame(made)) == [
        "ViT of width 1/8 of depth 2, MNIST (1,000 images), 50 or 100 epochs, seeds 0, 2, n = 2",
        "MLP, <b>, 50 epochs, seed 1, n = 1",
    ]
    assert claims.scope.lines(pd.DataFrame()) == []


def test_a_row_shows_its_scope_as_text(all_claims):
    shown = [
        dataclasses.replace(all_claims[0], section="S", known=["proved"], scope=["<b>, n = 1"])
    ]
    assert (
        "<td><b>proved</b><ul><li>&lt;b&gt;, n\u00a0=\u00a01</li></ul></td></tr>"
        in claims.table(shown, "S")
    )


# ------------------------------------------------------------------ measures


def test_measures_agree_with_the_rows(numbers):
    """A few of them, taken from the store in another way."""
    seeds = sorted(store.load_runs(RESULTS, dataset="digits", epochs=200)["seed"].unique().tolist())
    grids = [sweep.grid(name, seeds=seeds) for name in sweep.GRIDS]
    ids = [sweep.run_id(config) for grid in grids for config in grid]
    runs = store.load_runs(RESULTS, run_id=ids)
    good = runs[runs["train_acc"] >= 0.99]
    adam, adamw = (
        good.query("optimizer == @name and weight_decay > 0") for name in ("adam", "adamw")
    )
    assert numbers["ends"]["adamw_over_adam"] == adamw["nc3"].min() / adam["nc3"].min()
    logs = np.log10(good["nc0"])
    assert numbers["regression"]["r2_nc3"] == pytest.approx(
        np.corrcoef(logs, good["nc3"])[0, 1] ** 2
    )
    means = [rows.loc[rows["weight_decay"] == 0.5, "nc3"].mean() for rows in (adamw, adam)]
    most = numbers["equal_decay"]["adam_nc3_most"]
    assert most == pytest.approx(means[0] / means[1])
    sgd = runs.query(
        "optimizer == 'sgd' and lr == 0.01 and momentum == 0.9 and weight_decay == 5e-3"
    )
    law = theory.row_sum_ratio(0.01, 0.9, 5e-3, 11, 200)  # 1,400 digits in batches of 128
    off = abs(sgd["nc0"] / (sgd["nc0_init"] * law) - 1)
    assert len(off) == len(seeds)
    assert off.max() <= numbers["exact_law"]["off"]


def invented(**columns):
    frame = pd.DataFrame(columns)
    return claims.Rows(frame.assign(status="ok", train_acc=1.0), frame, frame)


def test_momentum_counts_steps_below_the_critical_one():
    """At ηλ = 0.0034 the critical momentum is 0.887."""
    made = invented(
        optimizer=["sgd"] * 4, lr=[0.0679] * 4, weight_decay=[0.05] * 4,
        momentum=[0.9, 0.0, 0.5, 0.7], nc0=[4.0, 3.0, 2.0, 2.5], nc3=[4.0, 3.0, 2.0, 1.0],
        seed=[0] * 4,
    )  # fmt: skip
    expected = dict(below=2, below_nc0=1, below_nc3=2)
    assert measures.momentum(made) == expected
    again = made.digits.assign(seed=1)  # no step leads from one seed to another
    both = claims.Rows(pd.concat([made.digits, again]), again, again)
    assert measures.momentum(both) == {name: 2 * count for name, count in expected.items()}


def test_the_exact_law_measure_sees_a_run_that_breaks_it(rows):
    at = rows.digits.query("optimizer == 'sgdw' and weight_decay == 5e-3").index[0]
    changed = rows.digits.copy()
    changed.loc[at, "nc0"] *= 1.01
    off = measures.exact_law(dataclasses.replace(rows, digits=changed))["off"]
    assert off == pytest.approx(0.01, rel=0.05)


# ------------------------------------------------------------------ evidence: the stored runs


def test_without_decay_nothing_collapses(numbers):
    """In 200 epochs."""
    found = numbers["ends"]
    assert found["free_n"] == 255
    assert found["free_collapsed"] == 0
    assert found["free_nc3_left"] > 0.25
    assert found["decayed_nc3_left"] < 0.02


def test_coupling_decides_in_adaptive_methods(numbers):
    ends = numbers["ends"]
    assert min(ends["adamw_over_adam"], ends["signumw_over_signum"]) > 5
    assert min(ends["all_adamw_nc0_left"], ends["all_signumw_nc0_left"]) > 1.5
    assert all(value > 1 for value in numbers["equal_decay"].values())  # where both grids have one


def test_adamw_may_end_below_its_start_on_other_networks(numbers):
    """Other than where the paper looked NC0 does not always grow; none of it is near zero."""
    found = numbers["ends"]
    assert found["networks_adamw_n"] >= 15
    assert 0 < found["networks_adamw_fell"] < found["networks_adamw_n"]
    assert 0.3 < found["networks_adamw_nc0_left"] < 0.9
    assert found["networks_signumw_nc0_left"] > 1


def test_sgdw_collapses_with_decoupled_decay(numbers):
    found = numbers["ends"]
    assert found["sgdw_collapsed"] == 46
    assert found["sgdw_nc3"] < min(0.03, found["adamw_nc3"] / 10)


def test_collapse_by_the_rule_needs_coupling_in_adaptive_methods(numbers):
    """On the digits MLP; on small convolutional networks coupling is not enough."""
    found = numbers["ends"]
    assert (found["adam_collapsed"], found["signum_collapsed"]) == (169, 225)
    assert found["adamw_collapsed"] == found["signumw_collapsed"] == 0
    for kind, collapsed in (("networks_coupled", 1), ("networks_decoupled", 0)):
        assert found[f"{kind}_collapsed"] == collapsed
        assert found[f"{kind}_n"] >= 56


def test_no_run_on_cifar_10_collapsed(numbers):
    found = numbers["ends"]
    assert (found["cifar_collapsed"], found["cifar_n"]) == (0, 122)
    assert found["cifar_nc3"] > rule.THRESHOLD


SMALL_NETWORKS = ["figure-24", "figure-29", "figure-34", "figure-39"]


@pytest.fixture(scope="module", params=SMALL_NETWORKS)
def small_network(rows, all_claims, request):
    """The converged runs of one small network and data set."""
    (claim,) = [claim for claim in all_claims if claim.id == request.param]
    found = rows.select(claim.runs)
    assert len(found) > 20
    return found


def test_small_networks_keep_more_with_decoupled_decay(small_network):
    decayed = small_network[small_network["weight_decay"] > 0]
    left = pd.DataFrame({m: decayed[m] / decayed[f"{m}_init"] for m in ("nc0", "nc3")})
    least = left.groupby(decayed["optimizer"]).min()
    for coupled, decoupled in measures.PAIRS:
        assert (least.loc[decoupled] > least.loc[coupled]).all()
        both = small_network[small_network["optimizer"].isin([coupled, decoupled])]
        assert not rule.collapsed(both).any()


def explained(runs):
    """R² of NC1, NC2 and NC3 on log NC0."""
    return [np.corrcoef(np.log10(runs["nc0"]), runs[m])[0, 1] ** 2 for m in rule.THREE]


def test_at_equal_decay_small_networks_keep_more_but_for_signumws_nc3_at_the_least(small_network):
    decayed = small_network[small_network["weight_decay"] > 0]
    middle = decayed.groupby(["optimizer", "weight_decay"])[["nc0", "nc3"]].median()
    for coupled, decoupled in measures.PAIRS:
        quotient = (middle.loc[decoupled] / middle.loc[coupled]).dropna()
        assert len(quotient) > 1
        assert (quotient["nc0"] > 1).all()
        lower = quotient["nc3"][quotient["nc3"] <= 1]
        assert [*lower.index] == ([0.0005] if decoupled == "signumw" else [])
        assert (lower > 0.9).all()


@pytest.mark.parametrize("name", ["figure-31", "figure-36", "figure-41"])
def test_small_networks_tie_nc3_to_nc0(rows, all_claims, name):
    (claim,) = [claim for claim in all_claims if claim.id == name]
    nc1, nc2, nc3 = explained(rows.select(claim.runs))
    assert max(nc1, nc2) < nc3
    assert f"though only {nc3:.0%} of it.".replace("%", " %") in claim.why


@pytest.mark.parametrize("small_network", SMALL_NETWORKS[:1], indirect=True)
def test_one_run_decides_what_nc0_explains_on_resnet9_and_cifar_10(small_network, all_claims):
    (why,) = [claim.why for claim in all_claims if claim.id == "figure-26"]
    nc1, _, nc3 = explained(small_network)
    assert f"log NC0 explains {nc1:.0%} of NC1 and {nc3:.0%} of NC3".replace("%", " %") in why
    one = small_network.loc[small_network["nc0"].idxmin()]
    decays = small_network["weight_decay"][small_network["optimizer"] == one["optimizer"]]
    assert (one["optimizer"], one["weight_decay"], decays.max()) == ("sgdw", 0.5, 0.5)
    assert one["nc1"] == small_network["nc1"].max()
    words = (
        f"One of the {len(small_network)} runs makes it so: SGDW at λ = 0.5, which ends with an "
    )
    assert f"{words}NC0 of {one['nc0']:.0e} and an NC1 of {one['nc1']:.0f}." in why
    nc1, nc2, nc3 = explained(small_network.drop(one.name))
    others = f"log NC0 explains {nc3:.0%} of NC3, and at most {max(nc1, nc2):.0%} of NC1 and NC2"
    assert others.replace("%", " %") in why


def test_adamw_collapses_in_neither_reading(numbers):
    found = numbers["ends"]
    assert (found["fixed_runs"], found["fixed_n"]) == (90, 90)
    assert found["fixed_collapsed"] == found["all_adamw_collapsed"] == 0
    assert min(found["fixed_nc3"], found["all_adamw_nc3"]) > 3 * rule.THRESHOLD


def test_the_best_runs_of_table_2(rows, numbers):
    """As printed, the paper's collapsed in part; of ours AdamW's has the greatest NC2 of four."""
    printed = {"sgd": (0.02, 0.19, 0.13), "sgdw": (0.01, 0.15, 0.10)}
    printed |= {"adam": (0.04, 0.23, 0.17), "adamw": (0.01, 0.14, 0.49)}
    table = pd.DataFrame(printed.values(), columns=[*rule.THREE]).assign(status="ok", train_acc=1)
    assert set(rule.outcome(table)) == {"in part"}
    assert set(rule.below(table)) == {"NC1"}
    good = rows.converged[rows.converged["optimizer"].isin([*printed])]
    best = good.loc[good.groupby("optimizer")["nc3"].idxmin()].set_index("optimizer")
    assert best["nc2"].idxmax() == "adamw"
    assert numbers["best"]["adamw_nc0"] > 1


def test_ten_times_the_epochs_let_adamws_nc0_grow():
    runs = store.load_runs(RESULTS, dataset="digits", optimizer="adamw", epochs=[200, 2000])
    key = ["lr", "momentum", "weight_decay", "seed"]
    by = {n: g.set_index(key) for n, g in runs[runs["train_acc"] >= 0.99].groupby("epochs")}
    ratio = (by[2000]["nc0"] / by[200]["nc0"]).dropna().groupby(level=[0, 1, 2]).median()
    assert len(ratio) == 12
    assert ratio.min() > 0.99
    assert (ratio > 1.01).mean() > 0.5
    assert not rule.collapsed(by[2000].reset_index()).any()


def test_the_readmes_headline_is_the_stores(rows):
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    so = rule.collapsed(rows.digits).groupby(rows.digits["optimizer"]).agg(["sum", "size"])
    assert so.loc["adam"].tolist() == [169, 540]
    assert so.loc["adamw", "sum"] == 0
    assert (
        "169 of Adam's 540 runs collapsed (NC1, NC2 and NC3, the distances of samples, class means "
        "and weights from that shape, all below 0.1) and none of AdamW's" in readme
    )
    convolutional = rows.networks[rows.networks["optimizer"].isin(["adam", "adamw"])]
    assert not rule.collapsed(convolutional).any()


def test_without_momentum_sgd_and_sgdw_are_one(numbers):
    found = numbers["sgd_pairs"]
    assert found["n"] >= 8
    assert found["plain_nc0"] < 1e-3  # the order of two float32 products
    assert found["plain_nc3"] < 1e-2  # which training amplifies


def test_sgdw_is_sgd_with_its_decay_shifted(numbers):
    found = numbers["sgd_pairs"]
    assert found["shifted"] == 5 * 12
    assert found["least"] > 0.85
    assert found["most"] < 1.15
    assert found["equal"] > 2


def test_momentum_speeds_nc0_up_below_the_critical_one(numbers):
    found = numbers["momentum"]
    assert found["below_nc0"] == found["below"] > 40
    assert found["below_nc3"] > 0.8 * found["below"]


def test_nc0_explains_most_of_nc3(numbers):
    found = numbers["regression"]
    assert 0.5 < found["low"] < found["r2_nc3"] < 0.7  # the paper: more than 0.7
    assert found["high"] == found["r2_0_005"]  # and not at the smallest learning rate
    assert found["low"] == found["r2_0_0679"]  # least at the largest learning rate
    assert found["r2_nc3"] > found["r2_nc2"] > 2 * found["r2_nc1"]
    assert found["plain"] < found["r2_nc3"]


def test_nc4_is_high_and_yet_follows_the_others(numbers):
    found = numbers["nc4"]
    assert found["least"] > 0.9
    assert found["mean"] > 0.99
    assert max(found["nc1"], found["nc2"], found["nc3"]) < -0.5


def test_properties_of_collapse_may_come_apart(numbers):
    found = numbers["partial_collapse"]
    assert found["nc1"] < 0.005
    assert found["nc2"] < 0.2
    assert found["nc0"] > 2
    assert found["nc3"] > 0.25
    assert found["beside"] > 1
    assert (found["kind"], found["wide"]) == (1, 278)


def test_the_smallest_singular_value_of_w_tells_coupling(numbers):
    found = numbers["singular_values"]
    assert min(found["adamw"], found["signumw"]) > 1.4
    assert (found["grew"], found["n"]) == (1069, 1070)
    assert max(found["sgd"], found["adam"], found["signum"]) < 0.05
    assert found["m"] > 2


def test_exact_law_on_every_stored_run(numbers):
    found = numbers["exact_law"]
    assert found["n"] == 5 * 216
    assert found["seen"] > 750
    assert found["off"] < 1e-3


def test_muon_collapses_with_decoupled_decay_and_lion_does_not(numbers):
    found = numbers["symmetry"]
    assert found["muonw_collapsed"] >= 15
    assert found["muonw_nc3"] < 0.05
    assert found["lion_collapsed"] == found["mars_collapsed"] == 0
    assert min(found["lion_nc3"], found["mars_nc3"]) > 0.3
    assert found["lionc_collapsed"] > 0
    assert found["shampoow_collapsed"] == found["soapw_collapsed"] == 0


def test_in_float32_muonws_nc0_may_rise_and_soapws_stay_far_above_the_law(rows):
    """As chapter ``symmetry`` says."""
    runs = figures.of_setting(rows.small, dataset="digits", model="mlp", epochs=200)
    law, left = figures.exact_law(runs), runs["nc0"] / runs["nc0_init"]
    weak = (runs["optimizer"] == "muonw") & (runs["lr"] >= 0.02) & runs["weight_decay"].eq(0.05)
    assert weak.sum() >= 6
    assert (left[weak] > 1).all()
    strong = (runs["optimizer"] == "soapw") & (law < 1.5e-9)
    assert strong.sum() >= 3
    assert (left[strong] > 0.1).all()


def test_float64_runs_follow_the_law_of_all_equivariant_optimizers(numbers):
    found = numbers["symmetry"]
    assert found["wide"] >= 40
    assert found["off"] < 1e-6
    assert found["far"] < 0.25  # SOAP at 1e-9 of its start, whose rounding it divides by 1e-8


def test_the_last_layer_decides(numbers):
    found = numbers["symmetry"]
    assert found["adamw_sgd_n"] >= 5
    assert found["adamw_sgd_most"] < 1e-4
    assert found["sgd_adamw_least"] > 1


def test_most_of_adamws_nc3_is_gauge(numbers):
    found = numbers["symmetry"]
    assert found["n"] >= 5
    assert found["share"] > 0.9
    assert found["nc3_centred"] < 0.2 * found["nc3"]
    assert found["nc2"] > 0.1


def test_unconstrained_features_collapse_under_adam_and_not_under_adamw(numbers):
    found = numbers["ufm_orders"]
    assert min(found[f"{p}_adam_{m}"] for p in ("strong", "weak") for m in ("nc0", "nc3")) > 100
    assert found["strong_sgd_nc0"] > 10
    assert found["weak_sgd_nc3"] < 10 < found["strong_sgd_nc3"]
    assert found["threshold"] == pytest.approx(np.sqrt(found["samples"] / 10) / found["samples"])


def test_as_many_steps_as_the_papers_part_the_same_pairs(numbers):
    found = numbers["as_many_steps"]
    for metric in ("nc1", "nc2", "nc3"):
        coupled, decoupled = (
            [found[f"{name}_{metric}"] for name in pair]
            for pair in (("sgd", "adam"), ("sgdw", "adamw"))
        )
        assert max(coupled) < min(decoupled)
        assert found[f"signumw_{metric}"] == max(found[f"{o}_{metric}"] for o in sweep.GRIDS)
        above = found[f"signum_{metric}"] > max(decoupled)
        assert above == (metric != "nc3")
    assert max(coupled) < found["signum_nc3"] < min(decoupled)
    assert found["adamw_nc0"] < found["signumw_nc0"]
    assert found["sgd_nc0"] < 1e-3 < found["sgdw_nc0"] < found["adam_nc0"] < 1 < found["adamw_nc0"]
    assert found["adam_nc0"] == pytest.approx(found["sgdw_nc0"], rel=0.05)


def test_the_walk_from_adamw_to_adam(numbers):
    found = numbers["walk"]
    assert found["nc0_falls"] > 2
    assert found["nc3_falls"] > 1.5
    assert max(found["nc0_most"], found["nc3_most"]) < 0.2
    assert found["nc2_first"] > 0.5
    assert abs(found["acc_1"] - found["acc_0"]) < 0.005
    assert 0 < found["little"] < 0.02


def test_the_plateau_of_sgdw_is_its_schedule(numbers):
    found = numbers["papers_law"]
    assert found["first"] == pytest.approx((1 - 0.0679 * 5e-4) ** (66 * 469), rel=1e-10)
    assert found["constant"] == pytest.approx((1 - 0.0679 * 5e-4) ** (200 * 469), rel=1e-10)
    assert found["constant"] < found["ratio"] / 5


def test_more_epochs_do_not_move_nc0_without_decay(numbers):
    found = numbers["papers_law"]
    assert (theory.row_sum_ratio(1e-3, [0.0, 0.9], 0.0, 469, 2000) == 1).all()
    assert found["long"] < found["short"] < 1


def test_the_grids_add_up_to_the_papers_number_of_runs(numbers):
    assert sum(len(sweep.grid(name)) for name in sweep.GRIDS) == 6 * 108
    assert numbers["run_counts"]["paper"] == 3888
    assert numbers["run_counts"]["runs"] == 5 * 648


# As printed: n, slope, its standard error, t, R², F.
TABLE_5 = {
    "LR=0.001": (170, 0.1903, 0.008, 24.262, 0.778, 588.6),
    "LR=0.005": (74, 0.2017, 0.012, 16.252, 0.786, 264.1),
    "LR=0.01": (114, 0.1439, 0.007, 19.892, 0.779, 395.7),
    "LR=0.0679": (41, 0.1771, 0.012, 14.367, 0.841, 206.4),
    "all": (399, 0.1582, 0.005, 32.760, 0.730, 1073),
}


def test_table_5_agrees_with_itself():
    for n, slope, error, t, r2, F in TABLE_5.values():
        assert abs(t**2 / F - 1) < 5e-4  # as many digits as F is printed with
        assert r2 == pytest.approx(F / (F + n - 2), abs=6e-4)
        assert abs(slope / t - error) < 5.1e-4
    *groups, everything = (row[0] for row in TABLE_5.values())
    assert sum(groups) == everything
    assert TABLE_5["all"][1] * 3185.69 > 500 > 2  # Table 1's SignumW, on NC0 itself; NC3 ≤ 2
