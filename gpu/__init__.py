"""Running kernels on a GPU: the `Device` protocol, PyCUDA behind it, the compiler, and what the driver says."""

from __future__ import annotations

from .device import Argument, Buffer, Device, DeviceProperties, Event, Graph, KernelSource, Launch, Module, Stream
from .driver import Driver, Gpu, find_driver
from .pycuda_device import PyCudaDevice
from .queue import THREADS, KernelQueue, Region, Value, ceil_div
from .replay import Memory, Replayer, allocate, prepare

__all__ = [
    "THREADS",
    "Argument",
    "Buffer",
    "Device",
    "DeviceProperties",
    "Driver",
    "Event",
    "Gpu",
    "Graph",
    "KernelQueue",
    "KernelSource",
    "Launch",
    "Memory",
    "Module",
    "PyCudaDevice",
    "Region",
    "Replayer",
    "Stream",
    "Value",
    "allocate",
    "ceil_div",
    "find_driver",
    "prepare",
]
