"""Running kernels on a GPU: the `Device` protocol, PyCUDA behind it, the compiler, and what the driver says."""

from __future__ import annotations

from .device import Argument, Buffer, Device, DeviceProperties, Event, Graph, KernelSource, Launch, Module, Stream
from .driver import Driver, Gpu, find_driver
from .pycuda_device import PyCudaDevice

__all__ = [
    "Argument",
    "Buffer",
    "Device",
    "DeviceProperties",
    "Driver",
    "Event",
    "Gpu",
    "Graph",
    "KernelSource",
    "Launch",
    "Module",
    "PyCudaDevice",
    "Stream",
    "find_driver",
]
