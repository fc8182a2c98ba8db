"""One run as an ordinary module with an ordinary optimizer."""

import torch
from torch import Tensor, nn

from ncbook import data, models, optim
from ncbook.train.config import RunConfig


class Loss(nn.Module):
    """Summed cross-entropy of a minibatch: the one call that goes through Fabric."""

    def __init__(self, net: models.Classifier, precision: str) -> None:
        super().__init__()
        self.net, self.low = net, precision == "bfloat16"

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.low):
            features = self.net.body(x)
        # W always in its own precision: the exact law of NC0 is about the last layer.
        logits = self.net.fc(features.to(self.net.fc.weight.dtype))
        return nn.functional.cross_entropy(logits, y, reduction="sum")


def initial_network(config: RunConfig, dataset: data.Streamed) -> models.Classifier:
    """The run's initialisation: from its seed alone, whatever else drew random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = models.build(
            config.model,
            dataset.num_classes,
            width=config.width,
            depth=config.depth,
            input_shape=dataset.input_shape,
        )
    return net.to(memory_format=torch.channels_last)


def build_optimizer(config: RunConfig, net: nn.Module) -> optim.Optimizer:
    """With weight decay on the parameters that are to decay."""
    decays, named = models.decayed(net), dict(net.named_parameters())
    groups = [
        {"params": [p for name, p in named.items() if decays[name]]},
        {"params": [p for name, p in named.items() if not decays[name]], "weight_decay": 0.0},
    ]
    share = None if optim.rule(config.optimizer).coupled_share is not None else config.coupled_share
    return optim.Optimizer(
        [group for group in groups if group["params"]],
        config.optimizer,
        config.lr,
        config.momentum,
        config.weight_decay,
        share,
    )
