"""Bands on the command line: from a checkpoint or a graph to labels, INT8 and scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from band_bundles import GREY16, RGBN, make_band_bundle, scene
from command_line import Command
from PIL import Image
from safetensors.torch import save_file
from tiny_graphs import local_layers, save_graph
from torch import nn

import atrous as package
from atrous.bands import Bands
from atrous.bundle import Bundle
from atrous.exporter.models import create_model


def passed(atrous: Command, *arguments: object) -> str:
    done = atrous(*arguments)
    assert done.code == 0, done.err
    return done.out


def test_a_graph_of_four_bands_is_packed_and_run(atrous: Command, tmp_path):
    graph = save_graph(tmp_path / "x.onnx", local_layers(3, bands=4), size=(64, 96))
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    bundle, names = tmp_path / "x.atrous", tmp_path / "names.txt"
    numbers = ("--mean", "0.4,0.4,0.4,0.3", "--std", "0.2,0.2,0.2,0.1")
    passed(atrous, "pack", graph, bundle, "--classes", names, "--bands", "red,green,blue,near infrared", *numbers)
    spec = Bundle.open(bundle).manifest.input
    assert (spec.bands, spec.mean, spec.scale) == (RGBN, (0.4, 0.4, 0.4, 0.3), 1 / 255)
    tifffile.imwrite(tmp_path / "field.tif", scene(RGBN, (64, 96)), photometric="rgb")
    passed(atrous, "run", bundle, tmp_path / "field.tif", "--crf", "--out", tmp_path / "out")
    labels = np.asarray(Image.open(tmp_path / "out" / "field.labels.png"))
    np.testing.assert_array_equal(labels, package.load(bundle, crf=True)(scene(RGBN, (64, 96))).labels)


def test_a_graph_of_other_bands_says_how(atrous: Command, tmp_path):
    graph = save_graph(tmp_path / "x.onnx", local_layers(3, bands=4), size=(64, 96))
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    refused = atrous("pack", graph, tmp_path / "x.atrous", "--classes", tmp_path / "names.txt")
    assert refused.code == 1
    assert "--bands N" in " ".join(refused.err.split())


@pytest.mark.slow
def test_a_checkpoint_of_one_band_is_exported(atrous: Command, tmp_path):
    network = create_model("deeplabv3_mobilenet_v2", num_classes=3, bands=1)
    nn.init.normal_(list(network.parameters())[-2])  # or its answers hardly differ, as after a softmax
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    weights, names = tmp_path / "x.safetensors", tmp_path / "names.txt"
    arguments = ("--arch", "deeplabv3_mobilenet_v2", "--source", "atrous", "--classes", names, "--size", "65x97")
    passed(atrous, "export", weights, tmp_path / "x.atrous", *arguments, "--bands", "grey:uint16:0..4095")
    assert Bundle.open(tmp_path / "x.atrous").manifest.input.bands == GREY16
    assert package.load(tmp_path / "x.atrous")(scene(GREY16, (65, 97))).labels.shape == (65, 97)
    refused = atrous("export", tmp_path / "x.safetensors", tmp_path / "y.atrous", *arguments, "--bands", "4")
    assert refused.code == 1
    assert "(32, 1, 3, 3)" in refused.err or "[32, 1, 3, 3]" in refused.err


@pytest.mark.parametrize("bands", [RGBN, GREY16], ids=str)
def test_quantized_and_scored(atrous: Command, tmp_path, bands):
    bundle = make_band_bundle(tmp_path / "x.atrous", bands)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for seed in range(3):
        image = scene(bands, (64, 96), seed)
        tifffile.imwrite(
            tmp_path / "images" / f"{seed}.tif",
            image.squeeze(),
            photometric="minisblack" if image.shape[2] == 1 else "rgb",
        )
        package.load(bundle)(image).save(tmp_path / "masks" / f"{seed}.png")
    bundle, report = package.quantize(bundle, images=tmp_path / "images", masks=tmp_path / "masks")
    assert report.accuracy.images == 3
    assert report.accuracy.agreement > 0.9
    scores = json.loads(
        passed(atrous, "eval", bundle.path, "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--json")
    )
    assert scores["miou"] == pytest.approx(1)


def test_inspect_names_the_bands(atrous: Command, tmp_path):
    make_band_bundle(tmp_path / "x.atrous", Bands.of(("vv", "vh"), "float32", ranges=((-25, 0), (-30, -5))))
    shown = passed(atrous, "inspect", tmp_path / "x.atrous")
    assert "vv -25 to 0, vh -30 to -5" in shown
