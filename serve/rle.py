"""Masks of classes as runs, in the uncompressed form of COCO: lengths column by column, those of zeros first."""

from __future__ import annotations

import numpy as np

from ..arrays import Labels


def class_runs(labels: Labels) -> dict[int, list[int]]:
    """Runs of each class that is in labels [H, W]: class id → counts.

    Counts go down the columns, from left to right, and begin with the pixels before the first of the class (0 where
    there are none); `pycocotools.mask.frPyObjects({"size": [H, W], "counts": counts}, H, W)` takes them.
    """
    flat = labels.T.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")  # runs of a class together, from the first to the last
    ids, firsts = np.unique(flat[starts][order], return_index=True)
    found = {}
    for class_id, runs in zip(ids.tolist(), np.split(order, firsts[1:]), strict=True):
        edges = np.stack([starts[runs], ends[runs]], axis=1).reshape(-1)
        counts = np.diff(edges, prepend=0, append=flat.size)
        found[class_id] = (counts[:-1] if counts[-1] == 0 else counts).tolist()
    return found
