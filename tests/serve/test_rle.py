from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from atrous.serve.rle import class_runs


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.integers(0, 3)))
def test_runs_make_the_labels_again(labels: np.ndarray) -> None:
    found = class_runs(labels)
    assert found.keys() == set(labels.reshape(-1).tolist())
    for class_id, counts in found.items():
        assert all(count > 0 for count in counts[1:])
        flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        np.testing.assert_array_equal(flat.reshape(labels.shape[::-1]).T, labels == class_id)


def test_go_down_the_columns() -> None:
    """The example of COCO's `mask.py`, of one class beside the background."""
    labels = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 1]], np.uint8)
    assert class_runs(labels)[1] == [1, 1, 2, 1, 1, 3]
