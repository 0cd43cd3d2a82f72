from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.errors import ExportError
from atrous.exporter.sizes import DynamicSize, output_stride, size_policy
from atrous.manifest import SizePolicy


class TestOutputStride:
    @pytest.mark.parametrize(
        ("size", "coarse", "stride"),
        [
            ((513, 513), (65, 65), 8),  # corners align: VGG-16, ResNet
            ((512, 512), (128, 128), 4),  # DeepLabv3+
            ((65, 97), (17, 25), 4),  # odd sizes, convolutions that round up
            ((64, 48), (9, 7), 8),  # pools that round up: one cell more
            ((375, 500), (48, 63), 8),  # … and two more
            ((360, 480), (45, 60), 8),
            ((65, 129), (8, 16), 8),  # layers that round down
            ((63, 90), (21, 30), 3),
            ((32, 32), (32, 32), 1),
            ((32, 64), (1, 2), 32),
        ],
    )
    def test_of_known_networks(self, size: tuple[int, int], coarse: tuple[int, int], stride: int) -> None:
        assert output_stride(size, coarse) == stride

    @given(
        power=st.integers(0, 5),
        cells=st.tuples(st.integers(3, 100), st.integers(3, 100)),
        rest=st.integers(0, 31),
        more=st.integers(0, 2),
    )
    def test_of_any_power_of_two(self, power: int, cells: tuple[int, int], rest: int, more: int) -> None:
        stride = 2**power
        height, width = (count * stride + rest % stride for count in cells)
        assert output_stride((height, width), (cells[0] + more, cells[1] + more)) == stride

    @pytest.mark.parametrize("coarse", [(6, 8), (64, 3), (70, 60)])
    def test_axes_in_another_order(self, coarse: tuple[int, int]) -> None:
        with pytest.raises(ExportError, match=r"no consistent output stride.*axes in another order"):
            output_stride((64, 48), coarse)


class TestSizePolicy:
    @pytest.mark.parametrize(
        ("size", "offset", "multiple"),
        [((64, 96), 0, 8), ((65, 97), 0, 1), ((65, 97), 1, 8), ((64, 96), 1, 1)],
    )
    def test_a_fixed_size_stands(self, size: tuple[int, int], offset: int, multiple: int) -> None:
        policy = size_policy(size, stride=8, offset=offset)
        assert policy == SizePolicy(size, size, size, multiple, offset if multiple > 1 else 0)
        assert policy.is_fixed

    @pytest.mark.parametrize("offset", [0, 1])
    def test_a_range_stands(self, offset: int) -> None:
        size = DynamicSize((50, 60), (100, 130), (200, 200))
        policy = size_policy(size, stride=8, offset=offset)
        assert policy == SizePolicy((50, 60), (100, 130), (200, 200), 1, offset)

    @pytest.mark.parametrize(
        ("offset", "nearest"), [(0, "64x64:112x144:192x192"), (1, r"65x65:113x145:193x193, or leave the multiple out")]
    )
    def test_what_is_not_on_the_grid_is_refused_with_what_is(self, offset: int, nearest: str) -> None:
        size = DynamicSize((50, 60), (100, 130), (200, 200), multiple=16)
        with pytest.raises(ExportError, match=rf"got 50x60:100x130:200x200\. The nearest range is {nearest}"):
            size_policy(size, stride=8, offset=offset)

    def test_the_multiple_is_as_asked(self) -> None:
        assert size_policy(DynamicSize((6, 6), (12, 12), (96, 96), 6), stride=4, offset=0).multiple == 6

    @pytest.mark.parametrize("size", [(0, 32), (-8, 32), DynamicSize((0, 32), (32, 32), (32, 32))])
    def test_sizes_are_positive(self, size: tuple[int, int] | DynamicSize) -> None:
        with pytest.raises(ExportError, match="must be positive"):
            size_policy(size, stride=8, offset=0)

    @pytest.mark.parametrize(
        "size",
        [
            DynamicSize((64, 64), (32, 64), (128, 128)),
            DynamicSize((32, 32), (64, 256), (128, 128)),
            DynamicSize((128, 128), (128, 128), (64, 128)),
        ],
    )
    def test_sizes_are_in_order(self, size: DynamicSize) -> None:
        with pytest.raises(ExportError, match="min ≤ opt ≤ max"):
            size_policy(size, stride=8, offset=0)
