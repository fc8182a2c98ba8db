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


class Plain(torch.optim.Optimizer):
    """The obvious loop of ``ncbook.optim``'s docstring, with both decays.

    Args:
        direction: makes d of g and of what it keeps for this parameter, a dict with the step ``t``.
    """

    def __init__(self, params, direction, coupled, decoupled, lr=LR):
        super().__init__(params, {"coupled": coupled, "decoupled": decoupled, "lr": lr})
        self.direction = direction

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                memory = self.state[p]
                memory["t"] = memory.get("t", 0) + 1
                d = self.direction(p.grad + group["coupled"] * p, memory)
                p.mul_(1 - group["lr"] * group["decoupled"]).sub_(group["lr"] * d)


def average(memory, name, value, beta, fresh=None):
    fresh = 1 - beta if fresh is None else fresh
    memory[name] = beta * memory.get(name, torch.zeros_like(value)) + fresh * value
    return memory[name]


def plain_adam(g, memory, beta):
    m, s = average(memory, "m", g, beta), average(memory, "s", g**2, 0.999)
    t = memory["t"]
    return m / (1 - beta**t) / ((s / (1 - 0.999**t)).sqrt() + 1e-8)


PLAIN = {
    "sgd": lambda g, memory, beta: average(memory, "m", g, beta, fresh=1.0),
    "adam": plain_adam,
    "sign": lambda g, memory, beta: average(memory, "m", g, beta).sign(),
}


def counterpart(name):
    """torch's own, or the obvious loop; of a mixed one with a coupled share of 0.3."""
    direction, share = optim.OPTIMIZERS[name]
    share = 0.3 if share is None else share

    def make(params, beta):
        betas = {"momentum": beta} if name == "sgd" else {"betas": (beta, 0.999)}
        if torchs := {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}.get(name):
            return getattr(torch.optim, torchs)(params, LR, weight_decay=DECAY, **betas)
        decays = share * DECAY, (1 - share) * DECAY
        return Plain(params, lambda g, memory: PLAIN[direction](g, memory, beta), *decays)

    return make


def make(params, name, **settings):
    share = 0.3 if optim.OPTIMIZERS[name].coupled_share is None else None
    settings = {"momentum": MOMENTUM, "weight_decay": DECAY, "coupled_share": share} | settings
    return optim.Optimizer(params, name, settings.pop("lr", LR), **settings)


COUNTERPARTS = {n: counterpart(n) for n, r in optim.OPTIMIZERS.items() if r.direction in PLAIN}


def test_every_optimizer_has_a_counterpart():
    """Those of ``sweep.BEYOND`` have theirs in test_directions."""
    assert {*COUNTERPARTS, *sweep.BEYOND} == set(optim.OPTIMIZERS)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("name", COUNTERPARTS)
def test_equals_its_counterpart_step_by_step(name, beta):
    for steps in (1, 2, STEPS):
        ours = train(lambda p: make(p, name, momentum=beta), torch.float64, steps)
        theirs = train(lambda p: COUNTERPARTS[name](p, beta), torch.float64, steps)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "sgdw", "adam", "adamw"])
def test_float32_stays_within_1e_6_over_50_steps(name):
    ours = train(lambda p: make(p, name))
    theirs = train(lambda p: COUNTERPARTS[name](p, MOMENTUM))
    assert (ours - theirs).abs().max() < 1e-6 * theirs.abs().max()


@pytest.mark.parametrize(("mixed", "pure"), [(1.0, "adam"), (0.0, "adamw")])
def test_interpolation_ends_at_adam_and_adamw(mixed, pure):
    ours = train(lambda p: make(p, "adam_mixed", coupled_share=mixed))
    assert torch.equal(ours, train(lambda p: make(p, pure)))


@pytest.mark.parametrize("by_number", [False, True])
@pytest.mark.parametrize("direction", ["sgd", "adam", "sign"])
def test_members_with_their_own_numbers_equal_each_alone(direction, by_number):
    """Three members, all five numbers different, against three separate updates; the direction by
    name, and by number as a compiled step takes it."""
    asked = optim.BY_NUMBER if by_number else direction
    number = torch.tensor(optim.NUMBERS[direction]).double()
    numbers = torch.tensor(  # lr, beta, coupled and decoupled decay of each member
        [[0.1, 0.01, 0.001], [0.0, 0.5, 0.98], [0.0, 0.1, 0.2], [0.3, 0.0, 0.1]]
    ).double()
    together = {"w": torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))}
    alone = [{"w": together["w"][i].clone()} for i in range(3)]
    state = optim.init_state(asked, together)
    states = [optim.init_state(direction, a) for a in alone]
    for t in range(1, 6):
        grad = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(100 + t))
        step = torch.tensor(float(t)).double()
        factors = optim.Factors.of(*numbers, step, number=number.expand(3))
        optim.update(asked, together, {"w": grad}, state, factors)
        for i in range(3):
            own = optim.Factors.of(*numbers[:, i], step)
            optim.update(direction, alone[i], {"w": grad[i]}, states[i], own)
    assert torch.equal(together["w"], torch.stack([a["w"] for a in alone]))


@pytest.mark.parametrize("direction", ["sgd", "adam", "sign", "lion", "mars"])
def test_a_parameter_of_one_number_moves_alone_in_each_member(direction):
    together = torch.tensor([1.0, 5.0, -2.0]).double()
    numbers = [torch.tensor(value).double() for value in (0.1, 0.9, 0.0, 0.1)]
    grads = 10 * torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()

    def trained(param, grads, members):
        params = {"scale": param.clone()}
        state = optim.init_state(direction, params)
        for t, grad in enumerate(grads, 1):
            own = [n.expand(members) if members else n for n in numbers]
            factors = optim.Factors.of(*own, torch.tensor(float(t)).double())
            optim.update(direction, params, {"scale": grad}, state, factors)
        return params["scale"]

    alone = [trained(together[i], grads[:, i], 0) for i in range(3)]
    torch.testing.assert_close(trained(together, grads, 3), torch.stack(alone), rtol=1e-12, atol=0)


def test_a_decay_mask_leaves_a_parameter_undecayed():
    params = {"w": torch.ones(2), "norm": torch.ones(2)}
    grads = {k: torch.zeros(2) for k in params}
    numbers = (torch.tensor(v, dtype=torch.float64) for v in (0.1, 0.0, 0.0, 0.5, 1.0))
    state = optim.init_state("sgd", params)
    factors = optim.Factors.of(*numbers)
    optim.update("sgd", params, grads, state, factors, decayed={"w": True, "norm": False})
    torch.testing.assert_close(params["w"], torch.full((2,), 0.95))
    assert torch.equal(params["norm"], torch.ones(2))


# ------------------------------------------------------------------ as torch's optimizers behave


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


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_every_rule_takes_numbers_of_16_bits(name):
    assert steps(make([one_param(torch.bfloat16)], name), 12).isfinite().all()


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


def test_a_scheduler_that_ended_at_zero_can_be_resumed():
    weight = one_param()
    optimizer = make([weight], "adamw")
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        scheduler.step()
    state = optimizer.state_dict()
    assert state["param_groups"][0]["lr"] == 0
    again = make([one_param()], "adamw")
    again.load_state_dict(state)
    assert again.param_groups[0]["lr"] == 0


def test_a_scheduler_scales_the_rate_of_vectors_too():
    layer = torch.nn.Linear(3, 3)
    optimizer = optim.Optimizer(layer.parameters(), "muonw", lr=0.02, vector_lr=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: float(step > 0))
    before = layer.bias.detach().clone()
    for moves in (False, True):
        layer(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        assert torch.equal(layer.bias, before) is not moves
        scheduler.step()


def test_half_precision_weights_take_factors_in_full_precision():
    """As torch's own SGD: 0.99 rounded to bfloat16 would be 0.98828, and the velocity 17 % less."""
    ends = []
    for kind in (torch.optim.SGD, lambda p, **k: optim.Optimizer(p, "sgd", **k)):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.zeros(200, dtype=torch.bfloat16))
        optimizer = kind([weight], lr=1e-3, momentum=0.99)
        for _ in range(300):
            weight.grad = (0.5 + 0.1 * torch.randn(200)).bfloat16()
            optimizer.step()
        ends.append(weight.detach().float().mean().item())
    assert ends[1] == pytest.approx(ends[0], rel=0.01)


def test_sparse_gradients_are_refused():
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = optim.Optimizer(table.parameters(), "adamw", lr=0.1)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"^adamw takes no sparse gradients"):
        optimizer.step()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "adma"}, "unknown optimizer 'adma'; valid: sgd, sgdw, adam"),
        ({"name": "mine:Mine"}, "unknown optimizer 'mine:Mine'; valid: sgd, sgdw, adam"),
        ({"lr": -0.1}, "lr must be a finite number > 0, got -0.1"),
        ({"lr": "1e-3"}, "lr must be a finite number > 0, got '1e-3'"),
        ({"lr": float("nan")}, "lr must be a finite number > 0, got nan"),
        ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\), got 1.0"),
        ({"weight_decay": -1}, "weight_decay must be a finite number >= 0, got -1"),
        ({"name": "adam_mixed"}, "adam_mixed needs a coupled_share"),
        ({"coupled_share": 0.5}, "adam has coupled_share 1.0, got 0.5"),
        ({"vector_lr": 0.1}, "vector_lr 0.1 is not for adam; valid for: muon"),
        ({"name": "muonw", "vector_lr": -1}, "vector_lr must be a finite number > 0"),
        ({"name": "muonw", "update_precision": "float16"}, "unknown update_precision 'float16'"),
        ({"centred": "yes"}, "centred must be true or false, got 'yes'"),
    ],
)
def test_bad_input_is_refused_by_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        optim.Optimizer(small_net().parameters(), **({"name": "adam", "lr": 0.1} | arguments))
