"""Running kernels on a GPU: the `Device` protocol, PyCUDA behind it, and the compiler."""

from __future__ import annotations

from .device import Argument, Buffer, Device, DeviceProperties, Event, Graph, KernelSource, Launch, Module, Stream
from .pycuda_device import PyCudaDevice

__all__ = [
    "Argument",
    "Buffer",
    "Device",
    "DeviceProperties",
    "Event",
    "Graph",
    "KernelSource",
    "Launch",
    "Module",
    "PyCudaDevice",
    "Stream",
]
