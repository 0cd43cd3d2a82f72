"""`torch.compile` on this GPU with the networks of `networks.py`; compiling takes long, the most wanted comes first."""

from __future__ import annotations

import sys
from functools import partial

import torch
from steps import sized
from torch_peers import Variant, report

with_graph = partial(torch.compile, mode="reduce-overhead")
COMPILED = sized(
    (
        Variant("compiled channels_last, CUDA graph", "fp16", is_channels_last=True, wrap=with_graph),
        Variant("compiled channels_last", "fp16", is_channels_last=True, wrap=torch.compile),
        Variant("compiled channels_last, CUDA graph", "fp32", is_channels_last=True, wrap=with_graph),
    ),
    rehearsal=(Variant("traced", "fp32", is_channels_last=True, wrap=partial(torch.compile, backend="eager")),),
)

if __name__ == "__main__":
    sys.exit(report(COMPILED))
