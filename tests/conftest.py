"""What every test may use."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# No deadline: a busy machine is not a bug. Derandomized: a failure in CI is the same failure on a desk.
settings.register_profile(
    "atrous", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("atrous")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts from the same seed in every test."""
    return np.random.default_rng(0)
