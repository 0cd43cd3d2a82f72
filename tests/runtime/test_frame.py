"""The kernels around the network against their twins on the CPU."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import PIL
import pytest
from emulator.emulated_device import BACKWARDS, SHUFFLED, EmulatedDevice
from frames import BLOCK, CAFFE, DTYPES, IMAGENET, Frames, planned
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tolerances import RESIZE_ORDER_LEVELS

from atrous import _native
from atrous._native import Geometry
from atrous.errors import EngineError
from atrous.gpu import Buffer
from atrous.manifest import OutputSpec, SizePolicy
from atrous.runtime.backends.base import EngineLayout
from atrous.runtime.gpu import frame
from atrous.runtime.postprocess import upsample_labels, upsample_probabilities
from atrous.runtime.preprocess import plan_geometry, prepare_image
from atrous.runtime.tiling import blend_tiles, plan_tiles


@pytest.fixture
def frames(device) -> Frames:
    return Frames(device)


def random_pictures(rng, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, size=(*shape, 3), dtype=np.uint8)


def test_python_and_kernels_agree_on_constants():
    text = "".join(path.read_text(encoding="utf-8") for path in frame.KERNELS.files())
    found = dict(re.findall(r"constexpr int (k\w+) = (\d+);", text))
    names = ("kThreads", "kWarp", "kBlocksPerMultiprocessor", "kRun", "kWeightBits")
    assert found == {name: str(_native.KERNEL_CONSTANTS[name]) for name in names}
    assert _native.Resampling(1, 1).weights.tolist() == [[1 << _native.KERNEL_CONSTANTS["kWeightBits"]]]


class TestNormalize:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("inputs", [IMAGENET, CAFFE], ids=["imagenet", "caffe"])
    @pytest.mark.parametrize(
        ("size", "out_size"),
        [((1, 1), (1, 1)), ((1, 1), (8, 8)), ((7, 5), (7, 5)), ((16, 24), (16, 24)), ((13, 22), (16, 24)),
         ((33, 30), (41, 33)), ((5, 9), (6, 41))],
    )  # fmt: skip
    def test_equals_the_cpu_bit_for_bit(self, frames, rng, size, out_size, inputs, dtype):
        picture = random_pictures(rng, *size)
        expected = prepare_image(picture, out_size, inputs).astype(dtype)
        np.testing.assert_array_equal(frames.prepared(picture[None], inputs, out_size, dtype)[0], expected)

    def test_every_level(self, frames):
        picture = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        for inputs in (IMAGENET, CAFFE):
            got = frames.prepared(picture[None], inputs, (16, 16), DTYPES[0])[0]
            np.testing.assert_array_equal(got, prepare_image(picture, (16, 16), inputs))

    @pytest.mark.parametrize("row_bytes", [33, 34, 36, 64])
    def test_a_batch_with_any_row_pitch(self, frames, rng, row_bytes):
        batch = random_pictures(rng, 3, 9, 11)
        rows, out = np.zeros((3, 10, row_bytes), np.uint8), np.empty((3, 3, 16, 16), np.float32)
        rows[:, :9, :33] = batch.reshape(3, 9, 33)
        scale = np.float32(IMAGENET.scale)
        mean, std = (np.array(each, np.float32) / scale for each in (IMAGENET.mean, IMAGENET.std))
        constants = np.stack([mean, std, (np.array(IMAGENET.pad_value, np.float32) - mean) / std])
        sizes = [np.int32(each) for each in (3, 9, 11, row_bytes, 10 * row_bytes)]
        swap_and_place = [np.int32(each) for each in (0, 0, 0, 16, 16)]
        frames.call("frame_normalize_f32", 3, BLOCK, rows, *sizes, constants, *swap_and_place, out)
        for one, picture in zip(out, batch, strict=True):
            np.testing.assert_array_equal(one, prepare_image(picture, (16, 16), IMAGENET))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(
        "size", [(1, 1), (64, 96), (128, 192), (33, 101), (101, 33), (63, 96), (63, 93), (1, 1000), (90, 1), (47, 64)]
    )
    def test_a_letterbox_is_the_cpus(self, frames, rng, size, dtype):
        """With corners at any remainder of the runs that a thread writes."""
        inputs = replace(CAFFE, resize="letterbox")
        batch = random_pictures(rng, 2, *size)
        for out_size in ((64, 96), (61, 95)):
            got = frames.prepared(batch, inputs, out_size, dtype)
            for one, picture in zip(got, batch, strict=True):
                np.testing.assert_array_equal(one, prepare_image(picture, out_size, inputs).astype(dtype))


RESIZED = [
    ((1, 1), (5, 7)), ((7, 3), (3, 9)), ((30, 40), (64, 64)), ((37, 61), (64, 24)), ((50, 90), (16, 8)),
    ((5, 200), (1, 1)), ((13, 17), (64, 3)), ((16, 16), (16, 16)),
]  # fmt: skip


#: Portrait to landscape and square, where Pillow 13 goes along columns first, and on both sides of its limit.
STRETCHED = [
    *RESIZED, ((400, 100), (100, 90)), ((300, 300), (90, 200)), ((100, 100), (60, 120)), ((64, 48), (32, 64)),
    ((90, 60), (70, 50)), ((91, 60), (70, 50)), ((60, 90), (50, 70)), ((100, 40), (100, 90)), ((40, 30), (90, 30)),
]  # fmt: skip
HAS_NEW_ORDER = int(PIL.__version__.split(".")[0]) >= 13


class TestResize:
    @pytest.mark.parametrize(("size", "out_size"), RESIZED)
    def test_equals_pillow_row_by_row_then_column_by_column(self, frames, rng, size, out_size):
        """A call of Pillow that changes one axis has one pass, so that its choice of order does not matter."""
        batch = random_pictures(rng, 2, *size)
        for got, picture in zip(frames.resized(batch, out_size), batch, strict=True):
            wide = Image.fromarray(picture).resize((out_size[1], size[0]), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(got, wide.resize(out_size[::-1], Image.Resampling.BILINEAR))

    @pytest.mark.parametrize(("size", "out_size"), STRETCHED)
    def test_is_the_cpus_preprocessing(self, frames, rng, size, out_size):
        """In Pillow 13's order of passes: along columns first where that takes away more."""
        batch = random_pictures(rng, 2, *size)
        for got, picture in zip(frames.stretched(batch, out_size), batch, strict=True):
            direct = Image.fromarray(picture).resize(out_size[::-1], Image.Resampling.BILINEAR)
            difference = np.abs(got.astype(int) - np.asarray(direct))
            assert difference.max() <= (0 if HAS_NEW_ORDER else RESIZE_ORDER_LEVELS)

    def test_the_order_shows(self, frames, rng):
        """Or the test above would show nothing."""
        batch = random_pictures(rng, 1, 100, 100)
        assert (frames.stretched(batch, (60, 120)) != frames.resized(batch, (60, 120))).any()

    @given(length=st.integers(1, 300), out_length=st.integers(1, 300))
    def test_no_tap_lies_outside(self, length, out_length):
        plan = _native.Resampling(length, out_length)
        assert (plan.first >= 0).all()
        assert (plan.first + plan.weights.shape[1] <= length).all()
        assert np.abs(plan.weights.sum(axis=1) - 2**22).max() <= plan.weights.shape[1]


#: coarse shape [C, h, w], image, input, resize
RESAMPLED = [
    ((1, 1, 1), (1, 1), (1, 1), "none"), ((1, 1, 1), (9, 7), (9, 7), "none"), ((21, 9, 9), (65, 65), (65, 65), "none"),
    ((21, 5, 7), (33, 51), (40, 56), "none"), ((5, 1, 6), (1, 1), (1, 1), "none"),
    ((256, 3, 4), (10, 9), (24, 32), "stretch"), ((4, 40, 60), (13, 29), (13, 29), "none"),
    ((3, 12, 17), (12, 17), (12, 17), "none"), ((19, 4, 8), (31, 1), (32, 64), "none"),
    ((2, 2, 2), (1, 5), (16, 5), "none"), ((130, 2, 3), (5, 12), (16, 24), "stretch"),
    ((21, 65, 65), (480, 513), (513, 513), "none"), ((21, 65, 65), (480, 640), (513, 513), "letterbox"),
    ((19, 9, 13), (333, 127), (64, 96), "letterbox"), ((3, 8, 12), (1, 1000), (64, 96), "letterbox"),
    ((3, 8, 12), (700, 1), (64, 96), "letterbox"), ((5, 8, 12), (64, 96), (64, 96), "letterbox"),
    ((5, 8, 12), (7, 5), (64, 96), "letterbox"), ((256, 3, 3), (41, 90), (37, 35), "letterbox"),
]  # fmt: skip


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "image", "size", "resize"), RESAMPLED)
class TestResample:
    def test_labels_are_the_cpus(self, frames, rng, shape, image, size, resize, dtype, align_corners):
        maps, geometry = (rng.normal(size=(2, *shape)) * 5).astype(dtype), Geometry(image, size, resize)
        got = frames.labels(maps, geometry, align_corners)
        for one, logits in zip(got, maps, strict=True):
            np.testing.assert_array_equal(one, upsample_labels(logits, geometry, align_corners=align_corners))

    def test_probabilities_are_the_cpus_bit_for_bit(
        self, frames, rng, shape, image, size, resize, dtype, align_corners
    ):
        maps, geometry = (rng.normal(size=(2, *shape)) * 5).astype(dtype), Geometry(image, size, resize)
        got = frames.probabilities(maps, geometry, align_corners)
        for one, logits in zip(got, maps, strict=True):
            np.testing.assert_array_equal(one, upsample_probabilities(logits, geometry, align_corners=align_corners))


SIDE = st.integers(1, 40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # a device may well run many frames
@given(data=st.data(), align_corners=st.booleans(), dtype=st.sampled_from(DTYPES))
def test_any_size_gives_the_cpus_bits(frames, data, align_corners, dtype):
    shape = data.draw(st.tuples(st.integers(1, 12), SIDE, SIDE))
    size = data.draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    resize = data.draw(st.sampled_from(["none", "letterbox"]))
    limits = size if resize == "none" else (200, 200)
    geometry = Geometry(data.draw(st.tuples(*(st.integers(1, limit) for limit in limits))), size, resize)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    maps = (rng.normal(size=shape) * 4).astype(dtype)
    for got_of, upsample in ((frames.labels, upsample_labels), (frames.probabilities, upsample_probabilities)):
        expected = upsample(maps, geometry, align_corners=align_corners)
        np.testing.assert_array_equal(got_of(maps[None], geometry, align_corners)[0], expected)
    picture = random_pictures(rng, *shape[1:])
    out_size = (shape[1] + data.draw(SIDE), shape[2] + data.draw(SIDE))
    inputs = replace(CAFFE, resize=resize)
    expected = prepare_image(picture, out_size, inputs).astype(dtype)
    np.testing.assert_array_equal(frames.prepared(picture[None], inputs, out_size, dtype)[0], expected)


def test_of_equal_logits_the_first_class_wins(frames):
    maps = np.zeros((1, 4, 3, 3), np.float32)
    maps[0, 2] = maps[0, 1] = 1
    assert (frames.labels(maps, Geometry((11, 11), (11, 11), "none"), True) == 1).all()


def test_far_apart_logits(frames):
    maps = np.array([1e4, -1e4, 0], np.float32).reshape(1, 3, 1, 1)
    got = frames.probabilities(maps, Geometry((2, 2), (2, 2), "none"), False)
    assert (got == np.array([1, 0, 0], np.float32).reshape(1, 3, 1, 1)).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_found(frames, rng, dtype, bad):
    maps = rng.normal(size=(2, 5, 17, 19)).astype(dtype)
    assert frames.first_bad(maps) == 0xFFFFFFFF
    maps[1, 2, 3, 4] = maps[1, 4, 0, 0] = bad
    assert frames.first_bad(maps) == np.ravel_multi_index((1, 2, 3, 4), maps.shape)


class Tiles:
    """A network of no size: it answers logits that are drawn before, and keeps what it is asked for."""

    def __init__(self, frames: Frames, image, count: int, dtypes, *, offset: int = 0) -> None:
        low, high = (16 + offset,) * 2, (48 + offset, 64 + offset)
        self.inputs = replace(IMAGENET, size=SizePolicy(low, low, high, multiple=8, offset=offset))
        self.outputs = OutputSpec(4)
        self.geometry = plan_geometry(image, self.inputs)
        self.tiles = plan_tiles(self.geometry, self.inputs, self.outputs)
        self.shape = (count, 3, *self.tiles.coarse_size(self.tiles.tile_size))
        self.layout = EngineLayout(dtypes[0], self.shape, dtypes[1])
        rng = np.random.default_rng(1)
        self.logits = [(rng.normal(size=self.shape) * 4).astype(dtypes[1]) for _ in self.tiles.origins]
        self.asked: list[np.ndarray] = []
        self._frames = frames

    def infer(self, source: Buffer, result: Buffer, stream) -> None:
        shape = (self.shape[0], 3, *self.tiles.tile_size)
        logits = self.logits[len(self.asked)]
        self.asked.append(self._frames.fetched(source, shape, self.layout.input_dtype))
        self._frames.device.upload(result, logits, stream)

    def blended(self, index: int) -> np.ndarray:
        """By the CPU, of one picture."""
        answers = iter(self.logits)
        return blend_tiles(self.tiles, lambda _top, _left: next(answers)[index].astype(np.float32))

    def plan(self) -> _native.LaunchPlan:
        return planned(self.geometry, self.tiles, self.layout, self.inputs, self.outputs)


class TestTiles:
    @pytest.mark.parametrize("dtypes", [DTYPES, DTYPES[::-1]], ids=["half-logits", "half-input"])
    @pytest.mark.parametrize("offset", [0, 1])
    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("image", [(50, 150), (49, 60), (161, 33), (130, 131)])
    def test_inputs_and_blended_logits_are_the_cpus_bit_for_bit(self, frames, rng, image, count, offset, dtypes):
        batch = random_pictures(rng, count, *image)
        network = Tiles(frames, image, count, dtypes, offset=offset)
        memory = frames.run(network.plan(), "inference", network.infer, pictures=batch)
        height, width = network.tiles.tile_size
        for got, (top, left) in zip(network.asked, network.tiles.origins, strict=True):
            for one, picture in zip(got, batch, strict=True):
                tile = picture[top : top + height, left : left + width]
                expected = prepare_image(tile, network.tiles.tile_size, network.inputs).astype(dtypes[0])
                np.testing.assert_array_equal(one, expected)
        shape = (count, 3, *network.tiles.coarse_size(network.tiles.full_size))
        for index, one in enumerate(frames.fetched(memory["blended"], shape, np.float32)):
            np.testing.assert_array_equal(one, network.blended(index))

    def test_logits_at_another_stride_than_the_manifests_are_refused(self, frames):
        network = Tiles(frames, (50, 150), 1, DTYPES)
        network.layout = EngineLayout(DTYPES[0], (1, 3, 5, 5), DTYPES[0])
        with pytest.raises(EngineError, match=r"5x5 logits for a tile of 48x64; expected 12x16 at stride 4"):
            network.plan()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (3, 7), (40, 33)])
def test_channels_are_swapped_in_place(frames, rng, size, count):
    batch = random_pictures(rng, count, *size)
    layout = EngineLayout(DTYPES[0], (count, 1, 1, 1), DTYPES[0])
    plan = planned(Geometry(size, size, "none"), None, layout, IMAGENET, OutputSpec(1))
    memory = frames.run(plan, "swap", pictures=batch)
    np.testing.assert_array_equal(frames.fetched(memory["pictures"], batch.shape, np.uint8), batch[..., ::-1])


@pytest.mark.parametrize("alpha", [0.0, 0.35, 0.6, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (16, 24)])
def test_overlays_are_the_cpus(frames, rng, size, alpha):
    picture, palette = random_pictures(rng, *size), random_pictures(rng, 256)
    labels = rng.integers(0, 256, size=size, dtype=np.uint8)
    expected = _native.overlay(picture, labels, palette, alpha)
    for offset in (0, 1):
        np.testing.assert_array_equal(frames.overlay(picture, labels, palette, alpha, offset), expected)


@pytest.mark.parametrize("order", [BACKWARDS, SHUFFLED])
def test_the_order_of_threads_and_blocks_does_not_matter(rng, order):
    maps, picture = rng.normal(size=(1, 5, 9, 9)).astype(np.float32), random_pictures(rng, 1, 45, 61)
    results = []
    for device in (EmulatedDevice(), EmulatedDevice(order=order)):
        frames = Frames(device)
        logits = (maps, Geometry((70, 71), (72, 72), "none"), False)
        prepared = frames.prepared(picture, IMAGENET, (48, 64), DTYPES[1])
        results.append(
            [prepared, frames.resized(picture, (32, 80)), frames.labels(*logits), frames.probabilities(*logits)]
        )
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
