"""Names for TensorRT's classes, which come without type stubs.

To a type checker each is `Any`. They say which class a value is, to a reader and to `tests/test_tensorrt_api.py`, which
follows them through the code and looks every attribute up in the real bindings of TensorRT 10, TensorRT 11 and
TensorRT-RTX. What only TensorRT-RTX has is reached through a name that starts with `Rtx`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

#: The imported module, `tensorrt` or `tensorrt_rtx`.
TensorRTModule: TypeAlias = Any
RtxModule: TypeAlias = Any

ILogger: TypeAlias = Any

Builder: TypeAlias = Any
IBuilderConfig: TypeAlias = Any
RtxBuilderConfig: TypeAlias = Any
INetworkDefinition: TypeAlias = Any
IOptimizationProfile: TypeAlias = Any
IProgressMonitor: TypeAlias = Any
ITensor: TypeAlias = Any
OnnxParser: TypeAlias = Any
ParserError: TypeAlias = Any

ICudaEngine: TypeAlias = Any
RtxCudaEngine: TypeAlias = Any
IExecutionContext: TypeAlias = Any
RtxExecutionContext: TypeAlias = Any
RtxRuntimeCache: TypeAlias = Any
RtxRuntimeConfig: TypeAlias = Any
Runtime: TypeAlias = Any
RtxRuntime: TypeAlias = Any
