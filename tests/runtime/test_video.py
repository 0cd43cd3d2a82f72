"""Videos: frames in, overlays out, whole or not at all."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import needs
import numpy as np
import pytest
from numpy.typing import NDArray
from tolerances import VIDEO_LEVELS

from atrous.bundle import Bundle
from atrous.errors import ImageError
from atrous.runtime.segmenter import Segmenter, load
from atrous.runtime.video import segment_video

av = needs.PYAV.load("av")

#: A frame rate that varies, in milliseconds.
TIMES_MS = (0, 100, 200, 700, 800, 900)
COLORS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]] * 2, np.uint8)


@pytest.fixture
def segmenter(color_bundle: Bundle) -> Segmenter:
    return load(color_bundle.path, backend="onnxruntime")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Six frames of 50×66 in red, green, blue, red, green, blue."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as writer:
        stream = writer.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 66, 50, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time_ms, color in zip(TIMES_MS, COLORS, strict=True):
            frame = av.VideoFrame.from_ndarray(np.tile(color, (50, 66, 1)), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[list[float], list[NDArray[np.uint8]]]:
    with av.open(str(path)) as reader:
        frames = list(reader.decode(video=0))
        return [frame.time for frame in frames], [frame.to_ndarray(format="rgb24") for frame in frames]


def test_every_frame_comes_back_at_its_time_with_its_overlay(segmenter: Segmenter, video: Path, tmp_path: Path) -> None:
    target = tmp_path / "overlay.mp4"
    count, timings = segment_video(segmenter, video, target)
    assert count == 6
    assert list(timings) == ["preprocess", "inference", "postprocess"]
    times, frames = read(target)
    assert times == [time_ms / 1000 for time_ms in TIMES_MS]
    palette = np.array([info.color for info in segmenter.classes])
    for index, (frame, color) in enumerate(zip(frames, COLORS, strict=True)):
        expected = 0.4 * color + 0.6 * palette[index % 3]
        assert frame.shape == (50, 66, 3)
        assert np.abs(frame - expected).max() <= VIDEO_LEVELS
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["clip.mp4", "overlay.mp4"]


def test_odd_sizes_lose_a_row(segmenter: Segmenter, tmp_path: Path) -> None:
    """H.264 in 4:2:0 has even sizes; the source is one of the formats that have not."""
    source, target = tmp_path / "odd.gif", tmp_path / "even.mp4"
    with av.open(str(source), "w") as writer:
        stream = writer.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 33, 47, "rgb8"
        for color in COLORS[:3]:
            frame = av.VideoFrame.from_ndarray(np.tile(color, (47, 33, 1)), format="rgb24")
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    assert segment_video(segmenter, source, target)[0] == 3
    assert [frame.shape for frame in read(target)[1]] == [(46, 32, 3)] * 3


@pytest.mark.parametrize("content", [b"", b"this is no video\n" * 100])
def test_what_is_no_video(segmenter: Segmenter, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "bad.mp4"
    source.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.mp4") as caught:
        segment_video(segmenter, source, tmp_path / "out.mp4")
    assert caught.value.path == source
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.mp4"]


def test_a_missing_video(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        segment_video(segmenter, tmp_path / "missing.mp4", tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_sound_without_pictures(segmenter: Segmenter, tmp_path: Path) -> None:
    source = tmp_path / "sound.wav"
    with av.open(str(source), "w") as writer:
        stream = writer.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        writer.mux(stream.encode(frame))
        writer.mux(stream.encode(None))
    with pytest.raises(ImageError, match="has no video stream"):
        segment_video(segmenter, source, tmp_path / "out.mp4")
    assert [entry.name for entry in tmp_path.iterdir()] == ["sound.wav"]


@pytest.mark.parametrize("place", ["out.avi", "missing/out.mp4", "file/out.mp4"])
def test_a_target_that_cannot_be(segmenter: Segmenter, video: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ImageError, match=r"cannot write .*expected a name that ends in \.mp4, in an existing folder"):
        segment_video(segmenter, video, tmp_path / place)


def test_an_interruption_keeps_the_video_that_was_there(segmenter: Segmenter, video: Path, tmp_path: Path) -> None:
    target = tmp_path / "overlay.mp4"
    target.write_bytes(b"old")

    class Interrupted(Segmenter):
        def submit(self, _image: object) -> object:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_video(Interrupted(segmenter.bundle, segmenter.backend), video, target)
    assert target.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["clip.mp4", "overlay.mp4"]
