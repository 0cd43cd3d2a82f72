"""Tiles: plans that cover, blending that changes nothing, and agreement with the picture run whole."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tiny_graphs import local_layers, make_bundle, put_logits_on_pixels
from tolerances import TILED_ABSOLUTE, TILED_AGREEMENT

from atrous.bundle import Bundle
from atrous.errors import EngineError, ShapeError
from atrous.exporter.normalization import IMAGENET
from atrous.exporter.sizes import DynamicSize
from atrous.manifest import InputSpec, OutputSpec, Size, SizePolicy
from atrous.runtime.backends import open_backend
from atrous.runtime.image import load_image
from atrous.runtime.postprocess import upsample_labels
from atrous.runtime.preprocess import Geometry, plan_geometry, prepare_image
from atrous.runtime.segmenter import Segmenter
from atrous.runtime.tiling import TilePlan, blend_tiles, plan_tiles

STRIDE = 8


def plan_for(image: Size, policy: SizePolicy, outputs: OutputSpec) -> TilePlan:
    inputs = InputSpec(policy)
    return plan_tiles(plan_geometry(image, inputs), inputs, outputs)


@st.composite
def policies(draw: st.DrawFn) -> tuple[SizePolicy, OutputSpec]:
    """What exports make: dynamic sizes on the grid, the multiple a multiple of the stride; or one fixed size."""
    outputs, offset = OutputSpec(draw(st.sampled_from([1, 4, 8, 16, 32]))), draw(st.integers(0, 1))
    multiple = outputs.stride * draw(st.integers(1, 3))
    blocks = [
        draw(st.lists(st.integers(1, 12), min_size=1, max_size=1)) * 3
        if draw(st.booleans())
        else sorted(draw(st.lists(st.integers(1, 12), min_size=3, max_size=3)))
        for _ in range(2)
    ]
    low, mid, high = ((tall * multiple + offset, wide * multiple + offset) for tall, wide in zip(*blocks, strict=True))
    return SizePolicy(low, mid, high, multiple, offset), outputs


class TestPlan:
    @given(policy=policies(), image=st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
    def test_tiles_cover_the_picture_and_nothing_else(self, policy: tuple[SizePolicy, OutputSpec], image: Size) -> None:
        sizes, outputs = policy
        assume(any(length > most for length, most in zip(image, sizes.max, strict=True)))
        plan = plan_for(image, sizes, outputs)
        assert len(set(plan.origins)) == len(plan.origins)
        for axis in (0, 1):
            tile, full = plan.tile_size[axis], plan.full_size[axis]
            starts = sorted({origin[axis] for origin in plan.origins})
            assert sizes.min[axis] <= tile <= sizes.max[axis]
            assert (tile - sizes.offset) % sizes.multiple == 0
            assert image[axis] <= full
            assert full < max(image[axis], sizes.min[axis]) + sizes.multiple
            assert all(start % outputs.stride == 0 for start in starts)
            (tile_cells, full_cells) = (plan.coarse_size(size)[axis] for size in (plan.tile_size, plan.full_size))
            covered = np.zeros(full_cells, int)
            for start in starts:
                first = start // outputs.stride
                covered[first : first + tile_cells] += 1
                assert 0 <= start <= full - tile
            assert covered.min() >= 1
            steps = np.diff(starts)
            assert len(set(steps[:-1])) <= 1  # as far apart as the overlap allows; only the last one may be closer
            assert steps[-1:].sum() <= steps[:1].sum()

    def test_neighbours_share_a_quarter(self) -> None:
        policy = SizePolicy((64, 64), (512, 512), (1024, 1024), 16)
        plan = plan_for((1500, 3000), policy, OutputSpec(16))
        assert plan.tile_size == (1024, 1024)
        assert plan.full_size == (1504, 3008)
        assert sorted({top for top, _ in plan.origins}) == [0, 480]
        assert sorted({left for _, left in plan.origins}) == [0, 768, 1536, 1984]

    def test_only_the_long_axis_is_cut(self) -> None:
        plan = plan_for((50, 3000), SizePolicy((64, 64), (512, 512), (1024, 1024), 16), OutputSpec(16))
        assert plan.tile_size == (64, 1024)
        assert {top for top, _ in plan.origins} == {0}

    def test_a_fixed_size_of_no_whole_cells_cannot_be_tiled(self) -> None:
        fixed = SizePolicy((500, 500), (500, 500), (500, 500), 1)
        with pytest.raises(ShapeError, match=r"cannot be tiled.*stretch") as caught:
            plan_for((600, 400), fixed, OutputSpec(16))
        assert (caught.value.expected, caught.value.actual) == ("at most 500x500", "600x400")


class TestBlend:
    @settings(max_examples=40)
    @given(policy=policies(), image=st.tuples(st.integers(1, 300), st.integers(1, 300)), seed=st.integers(0, 99))
    def test_tiles_of_one_map_blend_to_that_map(
        self, policy: tuple[SizePolicy, OutputSpec], image: Size, seed: int
    ) -> None:
        sizes, outputs = policy
        assume(any(length > most for length, most in zip(image, sizes.max, strict=True)))
        plan = plan_for(image, sizes, outputs)
        shape = (2, *plan.coarse_size(plan.full_size))
        whole = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)

        def cut(top: int, left: int) -> NDArray[np.float32]:
            row, column = top // outputs.stride, left // outputs.stride
            height, width = plan.coarse_size(plan.tile_size)
            return whole[:, row : row + height, column : column + width]

        np.testing.assert_allclose(blend_tiles(plan, cut), whole, rtol=0, atol=TILED_ABSOLUTE)

    def test_a_wrong_stride_in_the_manifest_is_an_engine_error(self) -> None:
        outputs = OutputSpec(16)
        plan = plan_for((300, 300), SizePolicy((64, 64), (64, 64), (128, 128), 16), outputs)
        with pytest.raises(EngineError, match=r"16x16 logits for a tile of 128x128; expected 8x8 at stride 16"):
            blend_tiles(plan, lambda _top, _left: np.zeros((2, 16, 16), np.float32))


@dataclass(frozen=True)
class Pair:
    """One network with a small and with a large maximum, and a picture that only the large one takes whole."""

    small: Bundle
    large: Bundle
    picture: NDArray[np.uint8]

    def logits(self) -> tuple[NDArray[np.float32], NDArray[np.float32], TilePlan]:
        """Tiled and whole, [C, h, w] each."""
        inputs, outputs = self.small.manifest.input, self.small.manifest.output
        backend = open_backend(self.small, backend="onnxruntime", threads=1)
        geometry = plan_geometry(self.picture.shape[:2], inputs)
        plan = plan_tiles(geometry, inputs, outputs)
        height, width = plan.tile_size

        def infer(top: int, left: int) -> NDArray[np.float32]:
            tile = self.picture[top : top + height, left : left + width]
            return backend.infer(prepare_image(tile, plan.tile_size, inputs)[None])[0]

        whole = backend.infer(prepare_image(self.picture, plan.full_size, inputs)[None])[0]
        return blend_tiles(plan, infer), whole, plan

    def labels(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Tiled and whole, [H, W] each, through the segmenter."""
        tiled, whole = (
            Segmenter(bundle, open_backend(bundle, backend="onnxruntime"))(self.picture).labels
            for bundle in (self.small, self.large)
        )
        return tiled, whole


def make_pair(folder: Path, *, dilation: int, maximum: int, align_corners: bool) -> Pair:
    small, large = (
        make_bundle(
            folder / f"{most}.atrous",
            local_layers(5, dilation=dilation),
            sizes=DynamicSize((32, 32), (64, 64), (most, most), multiple=STRIDE),
            normalization=IMAGENET,
            align_corners=align_corners,
        )
        for most in (maximum, 1024)
    )
    if align_corners:
        small, large = put_logits_on_pixels(small), put_logits_on_pixels(large)
    noise = np.random.default_rng(0).integers(0, 256, (590, 700, 3), dtype=np.uint8)
    blurred = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(6))).astype(np.float64)
    contrast = (blurred - blurred.min()) / np.ptp(blurred)
    return Pair(small, large, (contrast * 255).astype(np.uint8))


class TestAgreement:
    @pytest.mark.parametrize("align_corners", [False, True])
    def test_a_network_that_looks_less_far_than_the_margin_sees_no_tiles(
        self, tmp_path: Path, align_corners: bool
    ) -> None:
        """It looks 2 cells far, and of a tile's 32 cells the outermost 2 are left to the neighbour."""
        pair = make_pair(tmp_path, dilation=1, maximum=256, align_corners=align_corners)
        tiled, whole, plan = pair.logits()
        assert len(plan.origins) == 12
        assert np.abs(tiled - whole).max() <= TILED_ABSOLUTE
        tiled_labels, whole_labels = pair.labels()
        assert (tiled_labels == whole_labels).mean() >= 0.9999  # but for ties

    @pytest.mark.parametrize("align_corners", [False, True])
    def test_one_that_looks_further_differs_near_inner_edges_only(self, tmp_path: Path, align_corners: bool) -> None:
        pair = make_pair(tmp_path, dilation=3, maximum=256, align_corners=align_corners)
        tiled, whole, plan = pair.logits()
        untouched = np.ones(whole.shape[1:], bool)
        reach = 3 + 1  # the dilated convolution, and the strided ones before it
        for axis in (0, 1):
            starts = {origin[axis] for origin in plan.origins}
            edges = {edge for start in starts for edge in (start, start + plan.tile_size[axis])}
            for edge in (edge // STRIDE for edge in edges if 0 < edge < plan.full_size[axis]):
                np.moveaxis(untouched, axis, 0)[edge - reach : edge + reach + 1] = False
        assert untouched.mean() > 0.25
        assert np.abs(tiled - whole)[:, untouched].max() <= TILED_ABSOLUTE
        assert np.abs(tiled - whole).max() > 100 * TILED_ABSOLUTE  # or the test shows nothing
        tiled_labels, whole_labels = pair.labels()
        assert (tiled_labels == whole_labels).mean() >= TILED_AGREEMENT


def test_a_picture_30000_pixels_wide_is_exact_and_bounded(color_bundle: Bundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (25, 3750, 3), dtype=np.uint8)
    path = tmp_path / "wide.png"
    Image.fromarray(small.repeat(8, axis=0).repeat(8, axis=1)).save(path)
    backend = open_backend(color_bundle, backend="onnxruntime")
    seen: set[tuple[int, ...]] = set()

    class Watched:
        name, device, artifact = backend.name, backend.device, backend.artifact

        def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
            seen.add(images.shape)
            return backend.infer(images)

    picture_bytes = load_image(path).nbytes
    tracemalloc.start()
    try:
        result = Segmenter(color_bundle, Watched())(path)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    logits = np.ascontiguousarray(small.transpose(2, 0, 1), np.float32)
    expected = upsample_labels(logits, Geometry((200, 30_000), (200, 30_000), "none"), align_corners=False)
    assert (result.labels == expected).mean() >= 0.9999  # but for ties, which blending may break the other way
    assert seen == {(1, 3, 200, 256)}
    # The picture as Pillow's bytes and as an array, its labels, and small change; activations would be a hundredfold.
    assert peak_bytes <= 3 * picture_bytes
