from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from atrous.errors import ExportError
from atrous.exporter.classes import describe_classes, read_classes, voc_color
from atrous.manifest import ClassInfo


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

    def test_numbers_of_numpy_become_pythons(self) -> None:
        (found,) = describe_classes([ClassInfo(np.int64(0), "road", tuple(np.uint8([1, 2, 3])))])
        assert json.dumps([found.id, *found.color]) == "[0, 1, 2, 3]"

    @pytest.mark.parametrize("count", [0, 65537])
    def test_labels_have_16_bits(self, count: int) -> None:
        with pytest.raises(ExportError, match=f"1 to 65536 classes; got {count}"):
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

    def test_names_in_json(self, tmp_path: Path) -> None:
        path = tmp_path / "classes.json"
        path.write_text('["road", {"name": "car", "color": [1, 2, 3]}]')
        assert read_classes(path) == (ClassInfo(0, "road", voc_color(0)), ClassInfo(1, "car", (1, 2, 3)))

    def test_the_config_of_hugging_face(self, tmp_path: Path) -> None:
        path = tmp_path / "config.json"
        labels = {str(index): f"class {index}" for index in (10, *range(10))}  # ids, not places in the file
        path.write_text(json.dumps({"architectures": ["X"], "id2label": labels, "label2id": {"class 3": 0}}))
        assert read_classes(path) == describe_classes([f"class {index}" for index in range(11)])

    def test_comments(self, tmp_path: Path) -> None:
        path = tmp_path / "names.txt"
        path.write_text("# of the street data set\nroad\n  # not counted\nC# code\n")
        assert [entry.name for entry in read_classes(path)] == ["road", "C# code"]

    @pytest.mark.parametrize("name", ["classes.csv", "classes.yaml", "data.YML", "classes.tsv", "classes.toml"])
    def test_other_formats_are_refused_by_name(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_text("0,road\n1,car\n")
        with pytest.raises(
            ExportError, match=r"is (a CSV table|a table|YAML|TOML), .*one a line .*or as JSON: \["
        ) as caught:
            read_classes(path)
        assert name in str(caught.value)

    @pytest.mark.parametrize(
        "text",
        [
            '[{"name": "road"',
            '{"road": [1, 2, 3]}',
            '["road", 7]',
            '["road", null]',
            '{"id2label": {"0": "road", "2": "car"}}',
            '{"id2label": {"1": "road", "2": "car"}}',
            '{"id2label": {"road": 0}}',
            '{"id2label": ["road"]}',
            '{"label2id": {"road": 0}}',
            '"road"',
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
