from __future__ import annotations

from collections.abc import Callable

import pytest

from atrous.errors import ExportError
from atrous.exporter.size_probe import find_size_policy
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import Size, SizePolicy

Answer = Callable[[Size], tuple[int, ...]]


def network(stride: int, *, takes: Callable[[int], bool] = lambda _: True, up: bool = True, more: int = 0) -> Answer:
    """Shapes of the logits of a network; where `takes` is False for a side it raises, as networks of torch do."""

    def answer(size: Size) -> tuple[int, ...]:
        if not all(map(takes, size)):
            raise ExportError(f"fails on an input {list(size)}: Sizes of tensors must match")
        return (1, 3, *(-(-length // stride) if up else length // stride + more for length in size))

    return answer


def find(size: Size | DynamicSize, answer: Answer) -> tuple[SizePolicy, int]:
    return find_size_policy(size, answer, check=lambda _: None)


class TestRanges:
    @pytest.mark.parametrize(
        ("stride", "size", "offset"),
        [
            (1, DynamicSize((65, 65), (257, 257), (513, 513)), 0),
            (8, DynamicSize((65, 65), (257, 257), (513, 513)), 1),
            (8, DynamicSize((64, 64), (256, 256), (512, 512)), 0),
            (16, DynamicSize((1, 1), (37, 91), (333, 500)), 0),
        ],
    )
    def test_every_size_as_asked_where_the_network_takes_every_size(
        self, stride: int, size: DynamicSize, offset: int
    ) -> None:
        assert find(size, network(stride)) == (SizePolicy(*size.all, multiple=1, offset=offset), stride)

    @pytest.mark.parametrize("multiple", [2, 6, 8, 32])
    def test_the_smallest_multiple_that_the_network_takes(self, multiple: int) -> None:
        size = DynamicSize((96, 96), (192, 288), (384, 384))
        answer = network(2, takes=lambda length: length % multiple == 0)
        assert find(size, answer) == (SizePolicy(*size.all, multiple=multiple, offset=0), 2)

    def test_one_more_than_multiples(self) -> None:
        size = DynamicSize((33, 33), (65, 97), (129, 129))
        answer = network(8, takes=lambda length: length % 16 == 1)
        assert find(size, answer) == (SizePolicy(*size.all, multiple=16, offset=1), 8)

    def test_logits_on_pixels(self) -> None:
        size = DynamicSize((32, 32), (64, 96), (128, 128))
        assert find(size, network(8, up=False, more=1))[0] == SizePolicy(*size.all, multiple=1, offset=1)

    @pytest.mark.parametrize("multiple", [1, 4, 16])
    def test_a_multiple_as_asked(self, multiple: int) -> None:
        size = DynamicSize((65, 65), (257, 257), (513, 513), multiple)
        policy, _ = find(size, network(1))
        assert policy == SizePolicy(*size.all, multiple=multiple, offset=0 if multiple == 1 else 1)


class TestRefusals:
    @pytest.mark.parametrize(
        ("size", "nearest"),
        [
            (DynamicSize((50, 60), (100, 130), (200, 200)), "56x64:104x136:200x200"),
            (DynamicSize((48, 48), (96, 96), (100, 100)), "48x48:96x96:96x96"),
            (DynamicSize((48, 48), (64, 64), (100, 100), 4), "48x48:64x64:96x96"),
        ],
    )
    def test_sizes_that_the_network_does_not_take(self, size: DynamicSize, nearest: str) -> None:
        with pytest.raises(ExportError, match=rf"takes heights and widths of k · 8; .* nearest range is {nearest}"):
            find(size, network(4, takes=lambda length: length % 8 == 0))

    def test_a_network_that_fails_everywhere_says_its_own_error(self) -> None:
        with pytest.raises(ExportError, match="Sizes of tensors must match"):
            find(DynamicSize((32, 32), (64, 64), (96, 96)), network(8, takes=lambda _: False))

    def test_what_a_network_says_of_a_size_is_not_lost(self) -> None:
        said = r"Sizes of tensors must match[^$]*k · 2 \+ 1; .* nearest range is 33x33:65x65:95x95"
        with pytest.raises(ExportError, match=said):
            find(DynamicSize((32, 32), (64, 64), (96, 96)), network(8, takes=lambda length: length > 32))

    def test_a_network_that_takes_one_size(self) -> None:
        said = r"Sizes of tensors must match[^$]*no multiple up to 64 works\. Export one size instead"
        with pytest.raises(ExportError, match=said):
            find(DynamicSize((32, 32), (64, 64), (96, 96)), network(8, takes=lambda length: length == 64))

    def test_logits_of_one_size_whatever_the_input(self) -> None:
        with pytest.raises(ExportError, match="no multiple up to 64 works"):
            find(DynamicSize((32, 32), (64, 64), (96, 96)), lambda _: (1, 3, 8, 8))


@pytest.mark.parametrize("size", [(65, 97), DynamicSize((65, 97), (65, 97), (65, 97), 16)])
def test_a_fixed_size_runs_once(size: Size | DynamicSize) -> None:
    tried: list[Size] = []

    def answer(size: Size) -> tuple[int, ...]:
        tried.append(size)
        return network(8)(size)

    assert find(size, answer) == (SizePolicy((65, 97), (65, 97), (65, 97), 8, 1), 8)
    assert tried == [(65, 97)]
