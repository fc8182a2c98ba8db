"""Lion, MARS, Muon, Shampoo and SOAP against published implementations, or an obvious loop; and
two optimizers in one network."""

from functools import partial

import pytest
import pytorch_optimizer
import torch
from test_optim import Plain, average

from ncbook import optim, sweep
from ncbook.train import RunConfig, train_members

LR, BETA, DECAY, STEPS = 0.01, 0.9, 0.05, 50
SHAPES = [(10, 16), (16, 10), (8, 8)]
FOR_MATRICES = [name for name, r in optim.OPTIMIZERS.items() if r.direction in optim.FOR_MATRICES]
BEYOND = [*sweep.BEYOND]


def trained(make, shape=(8, 8), steps=STEPS):
    """A matrix after some steps of gradients that depend on it, in float64."""
    numbers = torch.Generator().manual_seed(1)
    draw = {"generator": numbers, "dtype": torch.float64}
    weight = torch.nn.Parameter(torch.randn(*shape, **draw))
    mixed = torch.randn(shape[1], shape[1], **draw)
    optimizer = make([weight])
    for _ in range(steps):
        noise = torch.randn(*shape, **draw)
        weight.grad = 0.1 * noise + 0.3 * torch.tanh(weight.detach() @ mixed)
        optimizer.step()
    return weight.detach()


def ours(name, decay=DECAY, **more):
    return lambda params: optim.Optimizer(params, name, LR, BETA, decay, **more)


def same(ours, theirs):
    assert (ours - theirs).abs().max() < 1e-8 * theirs.abs().max()


# ---------------------------------------------------------------- published implementations


@pytest.mark.parametrize("shape", SHAPES)
def test_muonw_is_torchs_muon(monkeypatch, shape):
    """Whose bfloat16 is made float64 here."""
    mine = trained(ours("muonw"), shape)
    monkeypatch.setattr(torch, "bfloat16", torch.float64)
    same(mine, trained(lambda p: torch.optim.Muon(p, LR, DECAY, BETA), shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("lion", partial(pytorch_optimizer.Lion, weight_decouple=True)),
        ("mars", partial(pytorch_optimizer.MARS, optimize_1d=True)),
    ],
)
def test_lion_and_mars_are_the_published_ones(name, theirs, shape):
    published = partial(theirs, lr=LR, betas=(BETA, 0.99), weight_decay=DECAY)
    same(trained(ours(name), shape), trained(published, shape))


def test_soap_is_the_published_one(monkeypatch):
    """Which decays after its step and not before it, so without decay; its QR in float32 is made
    float64. Square, as the first L and R of others have a null space with any basis."""
    mine = trained(ours("soapw", 0.0))
    monkeypatch.setattr(torch, "float32", torch.float64)
    options = {"lr": LR, "betas": (BETA, 0.95), "weight_decay": 0.0, "precondition_frequency": 10}
    same(mine, trained(lambda p: pytorch_optimizer.SOAP(p, **options)))


# ------------------------------------------------------------------------ obvious loops


def plain_muon(g, memory):
    ahead = BETA * average(memory, "m", g, BETA) + (1 - BETA) * g
    x = ahead.T if g.shape[0] > g.shape[1] else ahead
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.T if g.shape[0] > g.shape[1] else x) * max(1, g.shape[0] / g.shape[1]) ** 0.5


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag((values.clamp(min=0) + 1e-6) ** exponent) @ vectors.T


def plain_shampoo(g, memory):
    mean = average(memory, "m", g, BETA)
    roots = memory.get("roots")
    memory["L"], memory["R"] = memory.get("L", 0) + g @ g.T, memory.get("R", 0) + g.T @ g
    if memory["t"] % 10 == 1:
        memory["roots"] = power(memory["L"], -0.25), power(memory["R"], -0.25)
    return torch.zeros_like(g) if roots is None else roots[0] @ mean @ roots[1]


def plain_lion(g, memory):
    direction = torch.sign(BETA * memory.get("m", 0) + (1 - BETA) * g)
    average(memory, "m", g, 0.99)
    return direction


def plain_soap(g, memory):
    """Its first moment in W's own coordinates, and not in the eigenvectors'."""
    left, right = (average(memory, n, x, 0.95) for n, x in (("L", g @ g.T), ("R", g.T @ g)))
    if memory["t"] == 1:
        memory["QL"], memory["QR"] = (torch.linalg.eigh(x)[1].flip(1) for x in (left, right))
        return torch.zeros_like(g)
    ql, qr, t = memory["QL"], memory["QR"], memory["t"] - 1
    mean = average(memory, "m", g, BETA) / (1 - BETA**t)
    root = average(memory, "s", (ql.T @ g @ qr) ** 2, 0.95).sqrt() + 1e-8
    direction = ql @ (ql.T @ mean @ qr / root * (1 - 0.95**t) ** 0.5) @ qr.T
    if t % 10 == 0:
        rows = (ql * (left @ ql)).sum(0).argsort(descending=True)
        columns = (qr * (right @ qr)).sum(0).argsort(descending=True)
        memory["s"] = memory["s"][rows][:, columns]
        memory["QL"] = torch.linalg.qr((left @ ql)[:, rows])[0]
        memory["QR"] = torch.linalg.qr((right @ qr)[:, columns])[0]
    return direction


PLAIN = {"muon": plain_muon, "shampoo": plain_shampoo, "soap": plain_soap, "lion": plain_lion}


@pytest.mark.parametrize("name", [name for name in BEYOND if name != "mars"])
def test_equals_the_obvious_loop_with_either_decay(name):
    rule = optim.rule(name)
    decays = (DECAY, 0.0) if rule.coupled_share else (0.0, DECAY)
    theirs = trained(lambda p: Plain(p, PLAIN[rule.direction], *decays))
    same(trained(ours(name)), theirs)
    assert (theirs - trained(ours(name, 0.0))).abs().max() > 1e-3


# --------------------------------------------------------------------------- the engine


def test_a_convolution_is_one_matrix_and_a_vector_moves_by_adam():
    torch.manual_seed(0)
    weight, bias = torch.randn(6, 3, 2, 2).double(), torch.randn(6).double()
    gradients = torch.randn(5, 6, 13).double()

    def after(shaped, name):
        params = [torch.nn.Parameter(shaped.clone()), torch.nn.Parameter(bias.clone())]
        optimizer = optim.Optimizer(params, name, LR, BETA, DECAY, vector_lr=0.003)
        for gradient in gradients:
            params[0].grad = gradient[:, :12].reshape(shaped.shape)
            params[1].grad = gradient[:, 12]
            optimizer.step()
        return [p.detach().flatten() for p in params]

    whole, alone = after(weight, "muonw"), after(weight.flatten(1), "muonw")
    torch.testing.assert_close(whole, alone, rtol=0, atol=0)
    adam = torch.nn.Parameter(bias.clone())
    optimizer = torch.optim.AdamW([adam], 0.003, (BETA, 0.999), weight_decay=DECAY)
    for gradient in gradients:
        adam.grad = gradient[:, 12]
        optimizer.step()
    same(whole[1], adam.detach())


LAW = 0.9**4  # (1 - 0.05 * 2)^steps


def of_digits(**more):
    """Two epochs of two steps each."""
    shared = {"epochs": 2, "train_size": 200, "precision": "float64", "schedule": "constant"}
    return RunConfig(**(shared | more))


def nc0_ratio(configs, **more):
    runs, _ = train_members(configs, sweep.load_data(configs[0]), log_epochs=[], **more)
    return [run["nc0"] / run["nc0_init"] for run in runs], runs


@pytest.mark.parametrize("name", BEYOND)
def test_members_together_equal_each_alone(name):
    configs = [of_digits(optimizer=name, weight_decay=decay) for decay in (0.0, 0.1, 1.0)]
    together, _ = nc0_ratio(configs)
    assert together == [nc0_ratio([config])[0][0] for config in configs]


@pytest.mark.parametrize("name", ["sgdw", "muonw", "shampoow", "soapw"])
def test_under_decoupled_decay_nc0_falls_by_the_law(name):
    config = of_digits(optimizer=name, lr=0.05, weight_decay=2.0)
    assert nc0_ratio([config])[0] == pytest.approx([LAW], rel=1e-9)


def test_a_centred_head_follows_the_law_under_any_optimizer():
    config = of_digits(optimizer="adamw", lr=0.05, weight_decay=2.0, centred_head=True)
    free = of_digits(optimizer="adamw", lr=0.05, weight_decay=2.0)
    assert nc0_ratio([config])[0] == pytest.approx([LAW], rel=1e-9)
    assert nc0_ratio([free])[0][0] != pytest.approx(LAW, rel=1e-3)


def test_the_last_layer_follows_its_own_optimizer():
    own = {"head_optimizer": "sgdw", "head_lr": 0.05, "head_weight_decay": 2.0}
    config = of_digits(optimizer="adamw", lr=0.01, momentum=0.0, weight_decay=0.1, **own)
    assert nc0_ratio([config])[0] == pytest.approx([LAW], rel=1e-9)
    assert config.head_momentum == 0.0


def test_a_head_with_the_rests_numbers_changes_nothing():
    rest = of_digits(optimizer="adam", lr=0.01, weight_decay=0.01)
    both = of_digits(optimizer="adam", lr=0.01, weight_decay=0.01, head_optimizer="adam")
    assert nc0_ratio([rest])[0] == nc0_ratio([both])[0]


def test_members_of_a_chunk_have_heads_of_their_own():
    configs = [
        of_digits(optimizer="adamw", weight_decay=0.1, head_optimizer="sgdw", head_weight_decay=d)
        for d in (0.0, 0.5)
    ]
    assert configs[0].shared() == configs[1].shared()
    assert nc0_ratio(configs)[0] == [nc0_ratio([config])[0][0] for config in configs]


def test_a_lost_member_of_soap_or_shampoo_touches_no_other():
    for name in ("soapw", "shampoow"):
        configs = [of_digits(optimizer=name, lr=lr) for lr in (0.001, 1e300)]
        ratios, runs = nc0_ratio(configs)
        assert [run["status"] for run in runs] == ["ok", "diverged"]
        assert ratios[:1] == nc0_ratio(configs[:1])[0]


def test_ids_of_old_runs_do_not_change():
    new = {"vector_lr", "update_precision", "head_optimizer", "centred_head", "head_momentum"}
    assert not new & RunConfig(optimizer="adamw").identity().keys()


def test_orthogonalised_keeps_the_singular_vectors():
    matrix = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)).double()
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.mT @ optim.orthogonalised(matrix) @ right.mT
    values = found.diagonal(dim1=1, dim2=2)
    assert (found - torch.diag_embed(values)).abs().max() < 1e-12
    assert values.min() > 0.6
    assert values.max() < 1.3
