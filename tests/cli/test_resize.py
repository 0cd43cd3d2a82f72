"""`--resize` from the command that makes a bundle to those that use it, against an oracle that shares no code."""

from __future__ import annotations

import json
from pathlib import Path

import needs
import numpy as np
import pytest
from command_line import Command
from letterbox import INPUT, LEVELS, PADDING, Pixels, clear, expected, make_colored, padded
from PIL import Image
from segmenters import picture
from tiny_graphs import color_layers, save_graph
from tolerances import RESIZE_ORDER_LEVELS, VIDEO_LEVELS

from atrous.bundle import Bundle
from atrous.manifest import ResizePolicy, Size

SIZES = ((60, 31), (29, 90), (7, 5))
RESIZES = pytest.mark.parametrize("resize", ["none", "stretch", "letterbox"])


@pytest.fixture
def folder(tmp_path: Path, resize: ResizePolicy) -> Path:
    """`images/0.png` and so on, and `masks/` with their labels, void where two classes are nearly equal."""
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for index, size in enumerate(SIZES):
        image = picture(size, index)
        logits = expected(image, resize)
        Image.fromarray(image).save(tmp_path / "images" / f"{index}.png")
        mask = np.where(clear(logits), logits.argmax(axis=0), 255).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


def assert_labels(file: Path, image: Pixels, resize: ResizePolicy) -> None:
    logits = expected(image, resize)
    with Image.open(file) as stored:
        labels = np.asarray(stored)
    sure = clear(logits)
    assert sure.mean() > 0.7
    np.testing.assert_array_equal(labels[sure], logits.argmax(axis=0)[sure])


@RESIZES
def test_pack_keeps_it(atrous: Command, tmp_path: Path, resize: ResizePolicy) -> None:
    graph = save_graph(tmp_path / "a.onnx", color_layers(8), size=INPUT)
    (tmp_path / "names.txt").write_text("r\ng\nb\n")
    path = tmp_path / "a.atrous"
    outcome = atrous("pack", graph, path, "--classes", tmp_path / "names.txt", "--resize", resize)
    assert outcome.code == 0, outcome.err
    assert Bundle.open(path).manifest.input.resize == resize
    assert resize in atrous("inspect", path).out


@RESIZES
def test_run_and_eval(atrous: Command, folder: Path, resize: ResizePolicy) -> None:
    bundle = make_colored(folder, resize).path
    outcome = atrous("run", bundle, folder / "images", "--out", folder / "out")
    assert outcome.code == 0, outcome.err
    for index, size in enumerate(SIZES):
        assert_labels(folder / "out" / f"{index}.labels.png", picture(size, index), resize)
    scores = atrous("eval", bundle, "--images", folder / "images", "--masks", folder / "masks", "--json").json()
    assert (scores["miou"], scores["pictures"]) == (1, 3)


@RESIZES
def test_quantize_and_verify(atrous: Command, folder: Path, resize: ResizePolicy) -> None:
    """Ranges are of what enters the network, padding included; both graphs are scored on the images' pixels."""
    bundle = make_colored(folder, resize).path
    data = ("--images", folder / "images", "--masks", folder / "masks")
    outcome = atrous("quantize", bundle, *data, "--method", "minmax", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json()["fp32_miou"] == 1
    ranges = json.loads((bundle / "calibration.json").read_text())["tensors"]
    entered = [padded(picture(size, index), INPUT, PADDING, resize)[::8, ::8] for index, size in enumerate(SIZES)]
    largest = max(each.max() for each in entered) / LEVELS
    assert ranges["c0"]["amax"] == pytest.approx(largest, abs=RESIZE_ORDER_LEVELS / LEVELS)
    outcome = atrous("verify", bundle, *data, "--json")
    assert outcome.code == 0, outcome.err


@needs.PYAV.importable("av")
@RESIZES
@pytest.mark.parametrize("size", [(60, 32), (30, 90)])
def test_video(atrous: Command, tmp_path: Path, resize: ResizePolicy, size: Size) -> None:
    import av

    with av.open(str(tmp_path / "clip.mp4"), "w") as writer:
        stream = writer.add_stream("libx264", rate=5, options={"crf": "5"})
        stream.height, stream.width = size
        for seed in range(3):
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(picture(size, seed), format="rgb24")))
        writer.mux(stream.encode())
    with av.open(str(tmp_path / "clip.mp4")) as reader:
        frames = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    bundle = make_colored(tmp_path, resize).path
    outcome = atrous("run", bundle, tmp_path / "clip.mp4", "--labels", "--alpha", 0, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    for number, frame in enumerate(frames, start=1):
        assert_labels(tmp_path / "out" / "clip.labels" / f"{number:06}.png", frame, resize)
    with av.open(str(tmp_path / "out" / "clip.overlay.mp4")) as reader:
        shown = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    assert [each.shape for each in shown] == [(*size, 3)] * 3
    # Without the classes' colours the overlay is the video: it lies where it lay.
    assert max(np.abs(a.astype(float) - b).mean() for a, b in zip(shown, frames, strict=True)) <= VIDEO_LEVELS
