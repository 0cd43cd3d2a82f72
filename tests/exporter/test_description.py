from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atrous.crf import CRFParams
from atrous.errors import ExportError
from atrous.exporter.description import (
    Description,
    DynamicSize,
    Preprocessing,
    describe_classes,
    output_stride,
    read_classes,
    size_policy,
    voc_color,
)
from atrous.exporter.normalization import NORMALIZATIONS
from atrous.manifest import ClassInfo, SizePolicy
from atrous.runtime.preprocess import prepare_image

RANGE = DynamicSize(min=(64, 64), opt=(128, 192), max=(256, 256))


def describe(size: tuple[int, int] | DynamicSize = RANGE, *, align_corners: bool = False) -> Description:
    return Description(describe_classes(["road", "car"]), size, Preprocessing(), align_corners, None, None)


class TestClasses:
    @pytest.mark.parametrize(
        ("index", "color"),
        [(0, (0, 0, 0)), (1, (128, 0, 0)), (6, (0, 128, 128)), (15, (192, 128, 128)), (20, (0, 64, 128))],
    )
    def test_voc_colors(self, index: int, color: tuple[int, int, int]) -> None:
        assert voc_color(index) == color  # of VOC 2012's development kit

    def test_every_class_has_its_own_color(self) -> None:
        assert len({voc_color(index) for index in range(256)}) == 256

    def test_names_become_entries_and_entries_stay(self) -> None:
        mine = ClassInfo(1, "car", (1, 2, 3))
        assert describe_classes(["road", mine]) == (ClassInfo(0, "road", (0, 0, 0)), mine)

    @pytest.mark.parametrize("count", [0, 257])
    def test_labels_are_uint8(self, count: int) -> None:
        with pytest.raises(ExportError, match=f"1 to 256 classes; got {count}"):
            describe_classes(["x"] * count)


class TestReadClasses:
    def test_text(self, tmp_path: Path) -> None:
        path = tmp_path / "names.txt"
        path.write_text("\ufeffroad\n\n  traffic light \nStraße\n", encoding="utf-8")
        assert [entry.name for entry in read_classes(path)] == ["road", "traffic light", "Straße"]

    def test_json(self, tmp_path: Path) -> None:
        path = tmp_path / "classes.json"
        path.write_text('[{"name": "road", "color": [128, 64, 128]}, {"name": "car"}]')
        assert read_classes(path) == (ClassInfo(0, "road", (128, 64, 128)), ClassInfo(1, "car", voc_color(1)))

    @pytest.mark.parametrize(
        "text",
        [
            '[{"name": "road"',
            '{"road": [1, 2, 3]}',
            '["road", "car"]',
            '[{"color": [1, 2, 3]}]',
            '[{"name": "road", "color": [1, 2]}]',
            '[{"name": "road", "color": [300, 0, 0]}]',
            '[{"name": "road", "color": [0.5, 0, 0]}]',
            '[{"name": "road", "color": "#804080"}]',
            "7",
        ],
    )
    def test_other_json_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "classes.json"
        path.write_text(text)
        with pytest.raises(ExportError, match=r"classes\.json does not list classes.*Expected \[\{"):
            read_classes(path)

    def test_an_empty_list_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "classes.json"
        path.write_text("[]")
        with pytest.raises(ExportError, match="got 0"):
            read_classes(path)

    @pytest.mark.parametrize("content", [None, b"\xff\xfe\x00\x01"])
    def test_what_cannot_be_read(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "names.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ExportError, match=r"cannot read classes from .*names\.txt"):
            read_classes(path)


class TestPreprocessing:
    @pytest.mark.parametrize("name", NORMALIZATIONS)
    def test_padding_is_zero_to_the_network(self, name: str) -> None:
        spec = Preprocessing(NORMALIZATIONS[name]).input_spec(size_policy((4, 4), stride=1, offset=0))
        padded = prepare_image(np.zeros((1, 1, 3), np.uint8), (4, 4), spec)[:, 1:, 1:]
        half_a_level = 0.5 * spec.scale / min(spec.std)
        assert np.abs(padded).max() <= half_a_level * 1.001

    def test_caffe_pads_with_its_mean_in_rgb(self) -> None:
        spec = Preprocessing(NORMALIZATIONS["caffe"]).input_spec(size_policy((4, 4), stride=1, offset=0))
        assert (spec.color_order, spec.pad_value) == ("BGR", (123, 117, 104))

    def test_a_stated_padding_wins(self) -> None:
        policy = size_policy((4, 4), stride=1, offset=0)
        assert Preprocessing(pad_value=(1, 2, 3)).input_spec(policy).pad_value == (1, 2, 3)


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
        with pytest.raises(ExportError, match=r"no output stride.*axes in another order"):
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
    def test_a_range_is_rounded_up(self, offset: int) -> None:
        size = DynamicSize((50, 60), (100, 130), (200, 200), multiple=16)
        policy = size_policy(size, stride=8, offset=offset)
        low, mid, high = ((64 + offset, 64 + offset), (112 + offset, 144 + offset), (208 + offset, 208 + offset))
        assert policy == SizePolicy(low, mid, high, 16, offset)

    def test_the_multiple_holds_whole_cells(self) -> None:
        assert size_policy(DynamicSize((1, 1), (9, 9), (99, 99), 6), stride=4, offset=0).multiple == 12

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


class TestDraftManifest:
    def test_what_it_says(self) -> None:
        manifest = describe().draft_manifest(Path("out/street.atrous"), (1, 2, 16, 24))
        assert (manifest.name, manifest.output.stride, manifest.input.size.opt) == ("street", 8, (128, 192))
        assert manifest.crf == CRFParams.deeplab_v2_resnet().to_dict()
        assert json.loads(manifest.to_json())["classes"][1]["name"] == "car"

    @pytest.mark.parametrize(
        ("coarse", "offset", "smallest"), [((1, 2, 16, 24), 0, (64, 64)), ((1, 2, 17, 25), 1, (65, 65))]
    )
    def test_where_the_logits_lie_shows_in_their_number(
        self, coarse: tuple[int, ...], offset: int, smallest: tuple[int, int]
    ) -> None:
        policy = describe().draft_manifest(Path("street.atrous"), coarse).input.size
        assert (policy.multiple, policy.offset, policy.min) == (16, offset, smallest)

    @pytest.mark.parametrize("coarse", [(1, 3, 16, 24), (1, 16, 24, 2), (1, 16, 24), (1, 2, 4, 16, 24)])
    def test_other_logits_are_refused(self, coarse: tuple[int, ...]) -> None:
        with pytest.raises(ExportError, match=r"expected \[N, 2, h, w\].*\(road, car\)"):
            describe().draft_manifest(Path("street.atrous"), coarse)
