"""Directions that treat each number of a parameter for itself: SGD, Adam, sign, Lion and MARS.

Each takes the gradient and moves its slots, the moving averages, in place. They mix the classes'
coordinates in a way that differs from row to row, so with three classes or more all but SGD leak
into the flat direction.
"""

import torch
from torch import Tensor

ADAM_BETA2 = 0.999  # torch's default; the paper's D.1 leaves it there
ADAM_EPS = 1e-8  # torch's default
LION_BETA2 = 0.99  # Chen et al. (2023)
MARS_BETA2, MARS_GAMMA, MARS_EPS = 0.99, 0.025, 1e-8  # Yuan et al. (2024), of their code
NUMBERS = {"sgd": 0.0, "adam": 1.0, "sign": 2.0}  # by which ``by_number`` knows a direction

Slots = tuple[Tensor, ...]


def sgd(grad: Tensor, slots: Slots, f) -> Tensor:
    """v <- beta v + g;  d = v: heavy ball, without dampening, as torch's."""
    (velocity,) = slots
    velocity.copy_(f.momentum * velocity + grad)
    return velocity


def adam(grad: Tensor, slots: Slots, f) -> Tensor:
    """m <- beta m + (1 - beta) g;  s <- beta2 s + (1 - beta2) g²;  d = m̂ / (√ŝ + eps)."""
    mean, square = slots
    mean.copy_(f.momentum * mean + f.fresh * grad)
    square.copy_(ADAM_BETA2 * square + (1 - ADAM_BETA2) * grad * grad)
    return f.mean_scale * mean / (square.sqrt() * f.root_scale + ADAM_EPS)


def sign(grad: Tensor, slots: Slots, f) -> Tensor:
    """m <- beta m + (1 - beta) g;  d = sign(m): Signum (Bernstein et al., 2018)."""
    (mean,) = slots
    mean.copy_(f.momentum * mean + f.fresh * grad)
    return mean.sign()


def lion(grad: Tensor, slots: Slots, f) -> Tensor:
    """d = sign(beta m + (1 - beta) g);  m <- beta2 m + (1 - beta2) g, beta2 = 0.99.

    Chen et al. (2023), Algorithm 2; their beta is 0.9.
    """
    (mean,) = slots
    direction = (f.momentum * mean + f.fresh * grad).sign()
    mean.copy_(LION_BETA2 * mean + (1 - LION_BETA2) * grad)
    return direction


def mars(grad: Tensor, slots: Slots, f) -> Tensor:
    """Adam of the corrected gradient c = g + gamma beta / (1 - beta) (g - g_before).

    Yuan et al. (2024), MARS-AdamW in its approximate form: each parameter's c is scaled down to
    norm 1 if it is longer; gamma = 0.025, beta2 = 0.99, their beta is 0.95. As in the package
    pytorch_optimizer, eps is added to √s before the correction (the authors add it after), and
    every parameter is treated so (theirs: matrices alone).
    """
    mean, square, before, weight = slots
    change = MARS_GAMMA * f.momentum / f.fresh
    corrected = grad + change * (grad - before)
    whole = tuple(range(f.lead, grad.dim()))
    norm = corrected.square().sum(whole, keepdim=True).sqrt() if whole else corrected.abs()
    corrected = corrected / norm.clamp(min=1.0)
    before.copy_(grad)
    mean.copy_(f.momentum * mean + f.fresh * corrected)
    square.copy_(MARS_BETA2 * square + (1 - MARS_BETA2) * corrected * corrected)
    weight.copy_(MARS_BETA2 * weight + (1 - MARS_BETA2))  # of all squares, 1 - beta2^t
    return f.mean_scale * weight.sqrt() * mean / (square.sqrt() + MARS_EPS)


def by_number(grad: Tensor, slots: Slots, f) -> Tensor:
    """The direction of this number of ``NUMBERS``: so one compiled step serves the paper's
    optimizers."""
    mean, square = slots
    is_sgd, is_adam = f.number == NUMBERS["sgd"], f.number == NUMBERS["adam"]
    mean.copy_(f.momentum * mean + torch.where(is_sgd, 1.0, f.fresh) * grad)
    squared = ADAM_BETA2 * square + (1 - ADAM_BETA2) * grad * grad
    square.copy_(torch.where(is_adam, squared, square))
    scaled = f.mean_scale * mean / (square.sqrt() * f.root_scale + ADAM_EPS)
    return torch.where(is_adam, scaled, torch.where(is_sgd, mean, mean.sign()))
