"""Networks by name, and the layers of any network."""

from ncbook.models.layers import default_layers, find_head, listening
from ncbook.models.networks import (
    MLP_HIDDEN,
    MODELS,
    Attention,
    Classifier,
    Residual,
    build,
    check_depth,
    decayed,
)
