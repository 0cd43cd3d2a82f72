"""Data sets at scale: a list of images, a ledger by which a run is resumed, shards, and outputs written whole."""

from __future__ import annotations

from .maps import LabelMaps, ProbabilityMaps
from .refine import RefineOptions, refine_batch
from .runner import BatchOptions, Failure, Progress, Summary
from .segment import segment_batch
from .work_list import Shard, WorkItem, WorkOptions, find_work

__all__ = [
    "BatchOptions",
    "Failure",
    "LabelMaps",
    "ProbabilityMaps",
    "Progress",
    "RefineOptions",
    "Shard",
    "Summary",
    "WorkItem",
    "WorkOptions",
    "find_work",
    "refine_batch",
    "segment_batch",
]
