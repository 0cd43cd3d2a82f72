"""The GPU of the tests marked `gpu`: what the package would open, or the class that a run is about."""

from __future__ import annotations

import os

from atrous import gpu
from atrous.gpu import Device, open_device

CHOICE = "ATROUS_TEST_DEVICE"
"""Environment variable with the name of the class, where both libraries are installed and one of them is tested."""


def open_gpu(ordinal: int = 0) -> Device:
    """The GPU, for the calling thread; raises as `open_device` does."""
    name = os.environ.get(CHOICE)
    return getattr(gpu, name)(ordinal) if name else open_device(ordinal)
