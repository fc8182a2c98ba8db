"""Every optimizer against torch's own, or a ten-line reference where torch has none."""

import copy
import pickle

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from ncbook import optim, sweep

STEPS = 50
LR, MOMENTUM, DECAY = 0.01, 0.9, 0.05


def digits_batch(dtype=torch.float32):
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[:256] / 16, dtype=dtype), torch.tensor(y[:256])


def small_net(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).to(dtype)


def train(make_optimizer, dtype=torch.float32, steps=STEPS):
    x, y = digits_batch(dtype)
    net = small_net(dtype)
    optimizer = make_optimizer(net.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class Reference(torch.optim.Optimizer):
    """The obvious loop for what torch lacks: SGDW, Signum, SignumW and both decays at once."""

    def __init__(self, params, direction, lr, beta, coupled, decoupled):
        defaults = dict(direction=direction, lr=lr, beta=beta, coupled=coupled, decoupled=decoupled)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            lr, beta = group["lr"], group["beta"]
            for p in group["params"]:
                state = self.state[p]
                t = state["t"] = state.get("t", 0) + 1
                g = p.grad + group["coupled"] * p
                share = 1.0 if group["direction"] == "sgd" else 1 - beta
                m = state["m"] = beta * state.get("m", torch.zeros_like(p)) + share * g
                if group["direction"] == "adam":
                    s = state["s"] = 0.999 * state.get("s", torch.zeros_like(p)) + 0.001 * g**2
                    d = m / (1 - beta**t) / ((s / (1 - 0.999**t)).sqrt() + 1e-8)
                else:
                    d = m if group["direction"] == "sgd" else m.sign()
                p.mul_(1 - lr * group["decoupled"])
                p.sub_(lr * d)


def torch_sgd(params, beta):
    return torch.optim.SGD(params, LR, momentum=beta, weight_decay=DECAY)


def torch_adam(params, beta):
    return torch.optim.Adam(params, LR, betas=(beta, 0.999), weight_decay=DECAY)


def torch_adamw(params, beta):
    return torch.optim.AdamW(params, LR, betas=(beta, 0.999), weight_decay=DECAY)


COUNTERPARTS = {
    "sgd": torch_sgd,
    "sgdw": lambda params, beta: Reference(params, "sgd", LR, beta, 0, DECAY),
    "adam": torch_adam,
    "adamw": torch_adamw,
    "signum": lambda params, beta: Reference(params, "sign", LR, beta, DECAY, 0),
    "signumw": lambda params, beta: Reference(params, "sign", LR, beta, 0, DECAY),
    "sgd_mixed": lambda params, beta: Reference(params, "sgd", LR, beta, 0.3 * DECAY, 0.7 * DECAY),
    "adam_mixed": lambda params, beta: Reference(
        params, "adam", LR, beta, 0.3 * DECAY, 0.7 * DECAY
    ),
    "signum_mixed": lambda params, beta: Reference(
        params, "sign", LR, beta, 0.3 * DECAY, 0.7 * DECAY
    ),
}


def test_every_optimizer_has_a_counterpart():
    """Those of ``sweep.BEYOND`` have theirs in test_directions."""
    assert {*COUNTERPARTS, *sweep.BEYOND} == set(optim.OPTIMIZERS)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("name", COUNTERPARTS)
def test_equals_its_counterpart_step_by_step(name, beta):
    share = 0.3 if optim.OPTIMIZERS[name].coupled_share is None else None
    for steps in (1, 2, STEPS):
        ours = train(
            lambda p: optim.Optimizer(p, name, LR, beta, DECAY, share), torch.float64, steps
        )
        theirs = train(lambda p: COUNTERPARTS[name](p, beta), torch.float64, steps)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "sgdw", "adam", "adamw"])
def test_float32_stays_within_1e_6_over_50_steps(name):
    ours = train(lambda p: optim.Optimizer(p, name, LR, MOMENTUM, DECAY))
    theirs = train(lambda p: COUNTERPARTS[name](p, MOMENTUM))
    assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()


@pytest.mark.parametrize(("mixed", "pure"), [(1.0, "adam"), (0.0, "adamw")])
def test_interpolation_ends_at_adam_and_adamw(mixed, pure):
    ours = train(lambda p: optim.Optimizer(p, "adam_mixed", LR, MOMENTUM, DECAY, mixed))
    theirs = train(lambda p: optim.Optimizer(p, pure, LR, MOMENTUM, DECAY))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("by_number", [False, True])
@pytest.mark.parametrize("direction", ["sgd", "adam", "sign"])
def test_members_with_their_own_numbers_equal_each_alone(direction, by_number):
    """Three members, all five numbers different, against three separate updates; the direction by
    name, and by number as a compiled step takes it."""
    asked = torch.tensor(optim.NUMBERS[direction]) if by_number else direction
    lr, beta = torch.tensor([0.1, 0.01, 0.001]).double(), torch.tensor([0.0, 0.5, 0.98]).double()
    coupled, decoupled = (
        torch.tensor([0.0, 0.1, 0.2]).double(),
        torch.tensor([0.3, 0.0, 0.1]).double(),
    )
    together = {"w": torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))}
    alone = [{"w": together["w"][i].clone()} for i in range(3)]
    state = optim.init_state(asked, together)
    states = [optim.init_state(direction, a) for a in alone]
    for t in range(1, 6):
        grad = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(100 + t))
        step = torch.tensor(float(t)).double()
        factors = optim.Factors.of(lr, beta, coupled, decoupled, step)
        optim.update(asked, together, {"w": grad}, state, factors)
        for i in range(3):
            own = optim.Factors.of(lr[i], beta[i], coupled[i], decoupled[i], step)
            optim.update(direction, alone[i], {"w": grad[i]}, states[i], own)
    assert torch.equal(together["w"], torch.stack([a["w"] for a in alone]))


def test_a_decay_mask_leaves_a_parameter_undecayed():
    params = {"w": torch.ones(2), "norm": torch.ones(2)}
    grads = {k: torch.zeros(2) for k in params}
    numbers = (torch.tensor(v, dtype=torch.float64) for v in (0.1, 0.0, 0.0, 0.5, 1.0))
    state = optim.init_state("sgd", params)
    factors = optim.Factors.of(*numbers)
    optim.update("sgd", params, grads, state, factors, decayed={"w": True, "norm": False})
    torch.testing.assert_close(params["w"], torch.full((2,), 0.95))
    assert torch.equal(params["norm"], torch.ones(2))


def test_parameter_groups_keep_their_own_learning_rate():
    net = small_net()
    before = [p.detach().clone() for p in net.parameters()]
    groups = [{"params": net[0].parameters(), "lr": 1.0}, {"params": net[2].parameters()}]
    optimizer = optim.Optimizer(groups, "signum", lr=0.5, momentum=0.0)
    x, y = digits_batch()
    nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
    steps = [(p - b).abs().max().item() for p, b in zip(net.parameters(), before, strict=True)]
    assert steps == pytest.approx([1.0, 1.0, 0.5, 0.5], rel=1e-5)


# ------------------------------------------------------------------ as torch's optimizers behave


def make(params, name, **settings):
    share = 0.3 if optim.OPTIMIZERS[name].coupled_share is None else None
    settings = {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY} | settings
    return optim.Optimizer(params, name, coupled_share=share, **settings)


def one_param(dtype=torch.float64):
    values = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
    return nn.Parameter((values + 1j * values.flip(0) if dtype.is_complex else values).to(dtype))


def steps(optimizer, count, first=0):
    """So many steps on gradients that depend on the step's number alone; the parameter then."""
    (param,) = (p for group in optimizer.param_groups for p in group["params"])
    for t in range(first, first + count):
        param.grad = torch.randn(
            param.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(t)
        ).to(param.dtype)
        if param.is_complex():
            param.grad = param.grad * (1 - 2j)
        optimizer.step()
    return param.detach()


def saved_and_loaded(optimizer):
    params = [nn.Parameter(p.detach().clone()) for p in optimizer.param_groups[0]["params"]]
    new = make(params, optimizer.name, lr=0.5)
    new.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    return new


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda optimizer: pickle.loads(pickle.dumps(optimizer)),
    "state_dict": saved_and_loaded,
}


DTYPES = [torch.float16, torch.bfloat16, torch.complex128]
COPIED = [(name, way, torch.float64) for name in optim.OPTIMIZERS for way in COPIES]
COPIED += [("adam", way, dtype) for way in COPIES for dtype in DTYPES]


@pytest.mark.parametrize(("name", "way", "dtype"), COPIED)
def test_a_copy_goes_on_as_the_original(name, way, dtype):
    optimizer = make([one_param(dtype)], name)
    steps(optimizer, 3)
    other = COPIES[way](optimizer)
    assert (other.name, other.direction) == (name, optimizer.direction)
    before = steps(optimizer, 0).clone()
    alone = steps(other, 3, first=3).clone()
    assert torch.equal(steps(optimizer, 0), before), "the copy moved the original"
    assert torch.equal(steps(optimizer, 3, first=3), alone)
    assert not torch.equal(before, alone)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_complex_parameters_equal_those_of_torch(name):
    ours = steps(make([one_param(torch.complex128)], name), 5)
    theirs = steps(COUNTERPARTS[name]([one_param(torch.complex128)], MOMENTUM), 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_a_scheduler_and_a_group_of_its_own_numbers(name):
    """Two groups under a schedule equal two optimizers with the numbers written out."""
    first, second = one_param(), one_param()
    groups = [{"params": [first]}, {"params": [second], "momentum": 0.5, "lr": 0.1}]
    optimizer = make(groups, name)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    alone = [make([one_param()], name), make([one_param()], name, momentum=0.5, lr=0.1)]
    for t in range(4):
        grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(t)).double()
        for single in alone:
            single.param_groups[0]["params"][0].grad = grad
            single.step()
            single.param_groups[0]["lr"] *= 0.5
        first.grad = second.grad = grad
        optimizer.step()
        schedule.step()
    for param, single in zip((first, second), alone, strict=True):
        assert torch.equal(param, single.param_groups[0]["params"][0])


@pytest.mark.parametrize("other", ["adam", "sgdw", "torch"])
def test_the_state_of_another_rule_is_refused(other):
    optimizer = make([one_param()], "sgd")
    params = [one_param()]
    donor = torch.optim.SGD(params, LR) if other == "torch" else make(params, other)
    word = "another" if other == "torch" else other
    with pytest.raises(ValueError, match=f"^sgd cannot take parameters or a state of {word}$"):
        optimizer.load_state_dict(donor.state_dict())
    steps(optimizer, 1)


def test_a_sparse_gradient_is_named_before_anything_moves():
    dense, table = one_param(), nn.Embedding(5, 3, sparse=True)
    optimizer = make([dense, table.weight], "adam")
    before = dense.detach().clone()
    dense.grad = torch.ones_like(dense)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match=r"adam needs dense gradients.*shape \(5, 3\) is sparse"):
        optimizer.step()
    assert torch.equal(dense, before)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"lr": 0}, "lr must be a finite number > 0, got 0"),
        ({"momentum": 1}, r"momentum must be a number in \[0, 1\), got 1"),
        ({"weight_decay": -1.0}, "weight_decay must be a finite number >= 0, got -1.0"),
        ({"coupled_share": 0.5}, "adam has coupled_share 1.0, got 0.5"),
        ({"rule": "sgd"}, "adam cannot take parameters or a state of sgd"),
    ],
)
def test_a_group_is_checked_as_the_rest_is(group, message):
    optimizer = make([one_param()], "adam")
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [one_param()]} | group)
    assert len(optimizer.param_groups) == 1
    with pytest.raises(ValueError, match=message):
        make([{"params": [one_param()]} | group], "adam")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adma"}, "unknown optimizer 'adma'; valid: sgd, sgdw, adam"),
        ({"lr": -0.1}, "lr must be a finite number > 0, got -0.1"),
        ({"lr": "1e-3"}, "lr must be a finite number > 0, got '1e-3'"),
        ({"lr": float("nan")}, "lr must be a finite number > 0, got nan"),
        ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\), got 1.0"),
        ({"weight_decay": -1}, "weight_decay must be a finite number >= 0, got -1"),
        ({"name": "adam_mixed"}, "adam_mixed needs a coupled_share"),
        ({"name": "adam", "coupled_share": 0.5}, "adam has coupled_share 1.0, got 0.5"),
    ],
)
def test_bad_input_is_refused_by_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        optim.Optimizer(small_net().parameters(), **({"name": "adam", "lr": 0.1} | arguments))
