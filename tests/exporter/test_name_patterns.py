from __future__ import annotations

import pytest

from atrous.errors import ExportError
from atrous.exporter.name_patterns import kept_by_pattern

NAMES = ("conv_1", "conv_2", "relu_1", "add")


def test_patterns_name_nodes() -> None:
    found = kept_by_pattern(NAMES, ["*_1", "add", "add*"], modules={}, kind="node", error=ExportError)
    assert found == {"conv_1": "requested by '*_1'", "relu_1": "requested by '*_1'", "add": "requested by 'add*'"}
    assert kept_by_pattern(NAMES, [], modules={}, kind="node", error=ExportError) == {}


def test_a_pattern_without_a_match() -> None:
    with pytest.raises(ExportError, match=r"no layer matches 'gemm'; layer names are conv_1, conv_2, relu_1 …"):
        kept_by_pattern(NAMES, ["add", "gemm"], modules={}, kind="layer", error=ExportError)


def test_patterns_name_modules() -> None:
    modules = {"conv_1": "backbone.layer1.0.conv2", "conv_2": "backbone.layer3.0.conv2"}
    found = kept_by_pattern(NAMES, ["backbone.layer3.*"], modules=modules, kind="node", error=ExportError)
    assert found == {"conv_2": "requested by 'backbone.layer3.*'"}
    with pytest.raises(ExportError, match=r"layer names are backbone.layer1.0.conv2 \(conv_1\), backbone"):
        kept_by_pattern(NAMES, ["gemm"], modules=modules, kind="layer", error=ExportError)
