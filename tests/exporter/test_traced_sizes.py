"""Networks whose Python looks at the size of the input: the trace holds one branch of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_networks import Turning
from torch import Tensor, nn
from torch.nn import functional

from atrous.errors import ExportError
from atrous.exporter.onnx_export import export_graph, unequal_sides
from atrous.manifest import Size, SizePolicy

RANGE = SizePolicy((32, 32), (64, 64), (128, 128), 1)


class Skipping(nn.Module):
    """A skip connection to full resolution, which needs even sides."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.out = nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.out(image + functional.interpolate(self.down(image), scale_factor=2))


def trace(model: nn.Module, folder: Path, sizes: SizePolicy = RANGE) -> None:
    export_graph(model.eval(), folder / "model.onnx", sizes)


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        (lambda x: x.shape[2] > 100, r"H <= 100 only, and H=101 .*asked H, 32 to 100 hold"),
        (lambda x: x.shape[2] % 3 == 0, r"H=33 .*asked H, 32 to 128 hold without 33, 36, 39, 42 …"),
        (lambda x: x.shape[3] < 40, r"W >= 40 only, and W=32 .*asked W, 40 to 128 hold"),
        (lambda x: x.shape[2] % 8 == 0, r"H, 8\)"),
        (lambda x: x.shape[2] > x.shape[3], r"H <= W only, and H=\d+, W=\d+"),
        (lambda x: x.shape[2] * x.shape[3] > 100 * 100, r"H\*W"),
    ],
)
def test_decisions_by_size_are_refused(decide: Callable[[Tensor], bool], said: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=said):
        trace(Turning(decide), tmp_path)


def test_equal_sides_are_refused(tmp_path: Path) -> None:
    class Square(nn.Conv2d):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image + image.transpose(2, 3).contiguous())

    with pytest.raises(ExportError, match=r"Eq\(W, H\) only, and H=32, W=33"):
        trace(Square(3, 3, 8, stride=8), tmp_path)


def test_even_sides_are_refused_with_those_that_hold(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"32 to 128 in steps of 2 hold"):
        trace(Skipping(), tmp_path)


@pytest.mark.parametrize(("multiple", "opt"), [(2, 64), (16, 64)])
def test_what_padding_makes_true_is_accepted(multiple: int, opt: int, tmp_path: Path) -> None:
    trace(Skipping(), tmp_path, SizePolicy((32, 32), (opt, opt), (128, 128), multiple))


def test_what_holds_in_the_range_is_accepted(tmp_path: Path) -> None:
    trace(Turning(lambda x: x.shape[2] > 100), tmp_path, SizePolicy((32, 32), (64, 64), (100, 128), 1))


@pytest.mark.parametrize(
    ("sizes", "sides"),
    [
        (SizePolicy((32, 32), (64, 96), (128, 128), 8), (64, 96)),
        (SizePolicy((32, 32), (64, 64), (128, 128), 8), (64, 96)),
        (SizePolicy((32, 32), (128, 128), (128, 128), 1), (128, 96)),
        (SizePolicy((64, 64), (64, 64), (64, 65), 1), (64, 65)),
        (SizePolicy((64, 64), (64, 64), (96, 64), 1), (96, 64)),
    ],
)
def test_the_example_is_in_the_range_and_not_square(sizes: SizePolicy, sides: Size) -> None:
    assert unequal_sides(sizes) == sides
