"""The metrics against two public libraries: what each calls them, and where the values are equal.

- kowalski, https://pypi.org/project/kowalski, at VERSION.
- neural-collapse, https://github.com/rhubarbwu/neural-collapse, at COMMIT, on no package index. Its
  tests run where this commit is installed (``pip install
  git+https://github.com/rhubarbwu/neural-collapse@COMMIT``) or its checkout is on PYTHONPATH.

The chapter "printed" has a table of what is tested here.
"""

import hashlib
import re
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import kowalski
import pytest
import torch
from kowalski import neural_collapse as theirs
from kowalski.rankme import rankme
from torch import nn

from ncbook import data, metrics, models

RELATIVE = 1e-6
VERSION = "0.0.2"
COMMIT = "c05a0b80d6bc6e8e2e102f2180f1f33b2c9605fd"
BLOBS = {  # git's names of the files' contents at COMMIT
    "accumulate.py": "2f7d68012bcba5326c4a14fa07c9b9b7aeccac71",
    "kernels.py": "cb9986d952e6e48a25a934624103c70d11bfe901",
    "measure.py": "c02ac4e0e16286de40ecfdb141052f3729834661",
    "util.py": "1fdc00e9d52819d1ec972986d4757afbeb3ae385",
}
# What the libraries call the metrics that are equal.
IN_KOWALSKI = {
    "nc2w": "classifier_etf_convergence",
    "nc2m": "self_duality",
    "cdnv": "class_distance_normalized_variance",
}
IN_NEURAL_COLLAPSE = {
    "nc1": "covariance_ratio",
    "nc2": "simplex_etf_error",
    "nc2n": "mean_norms",
    "nc2w": "simplex_etf_error",
    "nc2m": "self_duality_error",
    "nc4": "clf_ncc_agreement",
    "nc1_quotient": "covariance_ratio",
    "cdnv": "variability_cdnv",
}
LABELS = {"nc2n": "NC2n", "nc1_quotient": "quotient"}  # in the chapter; else in capitals
CHAPTER = Path(__file__).parents[1] / "notebooks" / "printed.py"


# ------------------------------------------------------------ features of a network


@pytest.fixture(scope="module")
def network():
    """An MLP after five epochs on digits, float64, in evaluation mode; the data."""
    digits, order = data.load("digits"), torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = models.build("mlp")
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=5e-3)
    for _ in range(5):
        for batch in torch.randperm(len(digits.train_x), generator=order).split(128):
            optimizer.zero_grad()
            logits = net(digits.train_x[batch])
            nn.functional.cross_entropy(logits, digits.train_y[batch]).backward()
            optimizer.step()
    return net.double().eval().requires_grad_(False), digits


@pytest.fixture(scope="module", params=["balanced", "unbalanced"])
def case(network, request):
    """H, labels, W, b, the test set's, class means and ours: 140 samples a class, or 20 to 128."""
    net, digits = network
    inputs, labels = digits.train_x, digits.train_y
    if request.param == "unbalanced":
        kept = [(labels == k).nonzero()[: 20 + 12 * k, 0] for k in range(10)]
        inputs, labels = inputs[torch.cat(kept)], labels[torch.cat(kept)]
    features, tested = net.body(inputs.double()), net.body(digits.test_x.double())
    return SimpleNamespace(
        features=features,
        labels=labels,
        weight=net.fc.weight,
        bias=net.fc.bias,
        tested=tested,
        test_labels=digits.test_y,
        by_class=kowalski.to_per_class_list(features, labels),
        means=metrics.class_means(features, labels, 10),
        ours=metrics.nc_metrics(features, labels, net.fc.weight, None, tested),
    )


def assert_equal(found, ours):
    values = {key: float(value) for key, value in found.items()}
    assert values == pytest.approx({key: ours[key] for key in found}, rel=RELATIVE)


# ------------------------------------------------------------ kowalski


def test_the_kowalski_that_the_chapter_names_is_the_one_compared():
    assert version("kowalski") == VERSION


def test_kowalski_agrees(case):
    given = dict(global_mean=case.means.mean(0), class_means=list(case.means))
    found = {
        "nc2w": theirs.classifier_etf_convergence(case.weight),
        "nc2m": theirs.self_duality(None, case.weight, **given),
        "cdnv": theirs.class_distance_normalized_variance(case.by_class),
    }
    assert found.keys() == IN_KOWALSKI.keys()
    assert_equal(found, case.ours)


def test_kowalski_centres_by_the_mean_of_all_samples(case):
    """Which is that of the class means for classes of equal size alone."""
    found = theirs.self_duality(case.by_class, case.weight).item()
    centred = case.means - case.features.mean(0)
    ours = metrics.etf_distance(case.weight @ centred.mT).item()
    assert found == pytest.approx(ours, rel=RELATIVE)
    balanced = len(set(case.labels.bincount().tolist())) == 1
    assert (abs(found / case.ours["nc2m"] - 1) < RELATIVE) == balanced


def test_kowalski_within_class_variability_falls_with_the_number_of_samples(case):
    """It is Tr(Σ_W Σ_T†)/N, Σ_T being the scatter of all samples about their mean."""
    found = theirs.within_class_variability(case.by_class).item()
    residuals = case.features - case.means[case.labels]
    offsets = case.features - case.features.mean(0)
    within, total = (rows.mT @ rows / len(rows) for rows in (residuals, offsets))
    ratio = (within @ torch.linalg.pinv(total, hermitian=True)).trace() / len(offsets)
    assert found == pytest.approx(ratio.item(), rel=RELATIVE)

    twice = [rows.repeat(2, 1) for rows in case.by_class]
    half = theirs.within_class_variability(twice).item()
    assert half == pytest.approx(found / 2, rel=RELATIVE)
    ours = metrics.nc_metrics(case.features.repeat(2, 1), case.labels.repeat(2), case.weight)
    assert ours["nc1"] == pytest.approx(case.ours["nc1"], rel=RELATIVE)


def test_kowalski_rankme_is_the_effective_rank_but_for_its_epsilon_and_centring(case):
    """exp(-Σ q log q) with q = σ_i/Σσ + 1e-6, of the features as they come, in float32."""

    def by_formula(features, epsilon=1e-6):
        values = torch.linalg.svdvals(features)
        return torch.special.entr(values / values.sum() + epsilon).sum().exp().item()

    stream = metrics.LayerStream(10)
    for _ in range(2):
        stream.update(case.features, case.labels)
        stream.next_pass()
    ours, centred = stream.compute()["effective_rank"], case.features - case.features.mean(0)
    in_float32 = dict(rel=1e-5)
    assert rankme(centred, eps=1e-30).item() == pytest.approx(ours, **in_float32)
    for features in (centred, case.features):
        found = rankme(features).item()
        assert found == pytest.approx(by_formula(features), **in_float32)
        assert found != pytest.approx(ours, rel=1e-4)


# ------------------------------------------------------------ neural-collapse


@pytest.fixture(scope="module")
def library():
    """The modules ``accumulate``, ``kernels`` and ``measure`` of neural-collapse at COMMIT."""
    found = pytest.importorskip(
        "neural_collapse", reason=f"neural-collapse is on no package index; compared: {COMMIT}"
    )
    folder = Path(found.__file__).parent
    for name, expected in BLOBS.items():
        content = (folder / name).read_bytes() if (folder / name).exists() else b""
        blob = b"blob %d\0" % len(content) + content
        if hashlib.sha1(blob, usedforsecurity=False).hexdigest() != expected:
            pytest.skip(f"{folder / name} is not that of the commit compared, {COMMIT}")
    return found


@pytest.fixture
def accumulated(library, case):
    """What the library's accumulators make of the batches: its input to all its metrics."""
    sizes = (*case.weight.shape, "cpu", torch.float64)
    means = library.accumulate.MeanAccumulator(*sizes)
    within = library.accumulate.CovarAccumulator(*sizes)
    variances = library.accumulate.VarNormAccumulator(*sizes)
    decisions = library.accumulate.DecAccumulator(*sizes)
    batches = [
        (case.features[rows], case.labels[rows])
        for rows in torch.arange(len(case.features)).split(100)
    ]
    for batch in batches:
        means.accumulate(*batch)
    mu, mu_g = means.compute()
    for batch in batches:
        within.accumulate(*batch, mu)
        variances.accumulate(*batch, mu)
    decisions.accumulate(case.tested, case.test_labels, case.weight, mu)
    return SimpleNamespace(
        mu=mu,
        mu_g=mu_g,
        within=within.compute(),
        variances=variances.compute()[0],
        decisions=decisions,
    )


def test_neural_collapse_agrees(library, accumulated, case):
    mu, mu_g, within = accumulated.mu, accumulated.mu_g, accumulated.within
    arguments = {
        "nc1": (within, mu, mu_g),
        "nc2": (mu, mu_g),
        "nc2n": (mu, mu_g, [lambda norms: norms.std() / norms.mean()]),
        "nc2w": (case.weight,),
        "nc2m": (case.weight, mu, mu_g),
        "nc4": (accumulated.decisions,),
        "nc1_quotient": (within, mu, mu_g, "quotient"),
        "cdnv": (accumulated.variances, mu),
    }
    found = {
        key: getattr(library.measure, name)(*arguments[key])
        for key, name in IN_NEURAL_COLLAPSE.items()
    }
    assert_equal(found, case.ours)
    assert_equal({"nc1": library.measure.covariance_ratio(within, mu, mu_g, "svd")}, case.ours)


def test_neural_collapse_distance_norms_scale_each_row_alone(library, accumulated, case):
    """NC3 scales W and M as wholes."""
    centred = accumulated.mu - accumulated.mu_g
    unit = [rows / rows.norm(dim=1, keepdim=True) for rows in (case.weight, centred)]
    found = library.measure.distance_norms(case.weight, accumulated.mu, accumulated.mu_g)
    assert found.tolist() == pytest.approx((unit[0] - unit[1]).norm(dim=1).tolist(), rel=RELATIVE)

    whole = [rows / rows.norm() for rows in (case.weight, centred)]
    nc3 = library.measure.distance_norms(*whole, norm=False).norm()
    assert_equal({"nc3": nc3}, case.ours)


def test_neural_collapse_kernel_stats_are_of_distances(library, accumulated, case):
    """The mean, and the variance, of ‖u_i - u_j‖ = √(2 - 2 cos), where NC2a is of the cosines."""
    directions = nn.functional.normalize(metrics.centred_means(case.means))
    row, column = torch.triu_indices(10, 10, offset=1)
    distances = (2 - 2 * (directions @ directions.mT)[row, column]).sqrt()
    expected = distances.mean().item(), distances.var(correction=0).item()
    found = library.kernels.kernel_stats(accumulated.mu, accumulated.mu_g)
    assert found == pytest.approx(expected, rel=1e-4)  # it fills a float32 matrix


# ------------------------------------------------------------ the chapter


def test_the_chapter_says_what_is_equal():
    text = CHAPTER.read_text(encoding="utf-8")
    assert f"pypi.org/project/kowalski/{VERSION}/" in text
    assert f"github.com/rhubarbwu/neural-collapse/tree/{COMMIT}" in text
    (table,) = re.findall(r"^# \| here \|.*\n# \|---.*\n((?:# \|.*\n)+)", text, flags=re.MULTILINE)
    rows = [line.strip("# |").split(" | ") for line in table.splitlines()]
    for column, names in enumerate((IN_KOWALSKI, IN_NEURAL_COLLAPSE), start=1):
        said = {row[0]: row[column].split("`")[1] for row in rows if "equal" in row[column]}
        assert said == {LABELS.get(key, key.upper()): name for key, name in names.items()}
