"""GPU access: the `Device` protocol, its two libraries, the kernel compiler, and the CUDA driver."""

from __future__ import annotations

from .cuda_bindings_device import CudaBindingsDevice
from .device import Argument, Buffer, Device, DeviceProperties, Event, Graph, KernelSource, Launch, Module, Stream
from .driver import Driver, Gpu, find_driver
from .opening import open_device, usable_device
from .pycuda_device import PyCudaDevice
from .region import Region, ceil_div
from .replay import Infer, Memory, Replayer, Work, allocate, planned_bytes, prepare

__all__ = [
    "Argument",
    "Buffer",
    "CudaBindingsDevice",
    "Device",
    "DeviceProperties",
    "Driver",
    "Event",
    "Gpu",
    "Graph",
    "Infer",
    "KernelSource",
    "Launch",
    "Memory",
    "Module",
    "PyCudaDevice",
    "Region",
    "Replayer",
    "Stream",
    "Work",
    "allocate",
    "ceil_div",
    "find_driver",
    "open_device",
    "planned_bytes",
    "prepare",
    "usable_device",
]
