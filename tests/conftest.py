import numpy as np
import pytest


@pytest.fixture
def rng():
    """The one source of randomness in tests: the same numbers in every test that asks for it."""
    return np.random.default_rng(20)
