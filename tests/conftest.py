import signal
import sys

import numpy as np
import pytest

# In a shell's background job Ctrl-C is ignored, and all that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng():
    """The one source of randomness in tests: the same numbers in every test that asks for it."""
    return np.random.default_rng(20)


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    """Where cells of a chapter are executed, no notebook closes their figures."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
