"""Videos: frames in, overlays out, whole or not at all."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import needs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
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


ONE = 1 << 16
#: What players make of a display matrix (a, b, c, d): x' = a·x + c·y, y' = b·x + d·y.
MATRICES = {
    "as it is": (ONE, 0, 0, ONE),
    "quarter turn clockwise": (0, ONE, -ONE, 0),
    "half turn": (-ONE, 0, 0, -ONE),
    "quarter turn anticlockwise": (0, -ONE, ONE, 0),
    "mirrored": (-ONE, 0, 0, ONE),
    "upside down": (ONE, 0, 0, -ONE),
    "transposed": (0, ONE, ONE, 0),
    "transposed the other way": (0, -ONE, -ONE, 0),
    "nothing": (0, 0, 0, 0),
}


def upright(pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Pixels moved one by one to where the matrix puts them; the corner of the result is where it may be."""
    a, b, c, d = (np.sign(entry) for entry in matrix) if any(matrix) else (1, 0, 0, 1)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    columns, rows = a * x + c * y, b * x + d * y
    columns, rows = columns - columns.min(), rows - rows.min()
    moved = np.zeros((rows.max() + 1, columns.max() + 1, 3), np.uint8)
    moved[rows, columns] = pixels
    return moved


@pytest.fixture
def quarters() -> NDArray[np.uint8]:
    """[48, 64, 3]: red above, green below on the left, blue below on the right."""
    pixels = np.tile(COLORS[0], (48, 64, 1))
    pixels[24:, :32], pixels[24:, 32:] = COLORS[1], COLORS[2]
    return pixels


def turned(path: Path, pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int], **options: Fraction) -> Path:
    """Two such frames in an MP4 with this matrix in its track header, as telephones write it."""
    with av.open(str(path), "w") as writer:
        stream = writer.add_stream("libx264", rate=10, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
        for name, value in options.items():
            setattr(stream.codec_context, name, value)
        for _ in range(2):
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        writer.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    a, b, c, d = matrix
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", MATRICES)
def test_the_display_matrix_is_applied(
    segmenter: Segmenter, quarters: NDArray[np.uint8], tmp_path: Path, name: str
) -> None:
    source, labels = turned(tmp_path / "turned.mp4", quarters, MATRICES[name]), tmp_path / "labels"
    assert segment_video(segmenter, source, tmp_path / "out.mp4", labels=labels)[0] == 2
    expected = upright(read(source)[1][1], MATRICES[name])  # PyAV gives frames as they are stored
    with Image.open(labels / "000002.png") as picture:
        found = np.asarray(picture)
    assert np.array_equal(found, segmenter(expected).labels)
    with av.open(str(tmp_path / "out.mp4")) as reader:
        (first, _) = reader.decode(video=0)
        assert (first.height, first.width) == expected.shape[:2]
        assert first.side_data.get("DISPLAYMATRIX") is None  # upright as it is: nothing may turn it again
        pixels = first.to_ndarray(format="rgb24").astype(int)
    overlay = np.asarray(segmenter(expected).overlay(), int)
    height, width = expected.shape[:2]
    middles = np.ix_((height // 4, 3 * height // 4), (width // 4, 3 * width // 4))  # H.264 blurs edges
    assert np.abs(pixels - overlay)[middles].max() <= VIDEO_LEVELS


def test_other_angles_are_refused(segmenter: Segmenter, quarters: NDArray[np.uint8], tmp_path: Path) -> None:
    source = turned(tmp_path / "turned.mp4", quarters, (46341, 46341, -46341, 46341))
    with pytest.raises(ImageError, match="rotated by other than quarter turns"):
        segment_video(segmenter, source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("name", "expected"), [("as it is", Fraction(4, 3)), ("quarter turn clockwise", Fraction(3, 4))]
)
def test_pixels_that_are_not_square_stay_so(
    segmenter: Segmenter, quarters: NDArray[np.uint8], tmp_path: Path, name: str, expected: Fraction
) -> None:
    source = turned(tmp_path / "turned.mp4", quarters, MATRICES[name], sample_aspect_ratio=Fraction(4, 3))
    segment_video(segmenter, source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as reader:
        assert reader.streams.video[0].sample_aspect_ratio == expected


def test_alpha(segmenter: Segmenter, video: Path, tmp_path: Path) -> None:
    segment_video(segmenter, video, tmp_path / "out.mp4", alpha=np.float32(0))
    for frame, color in zip(read(tmp_path / "out.mp4")[1], COLORS, strict=True):
        assert np.abs(frame - color.astype(int)).max() <= VIDEO_LEVELS
    with pytest.raises(ImageError, match="alpha is a share between 0 and 1; got 2"):
        segment_video(segmenter, video, tmp_path / "out.mp4", alpha=2)


class TestLabels:
    def test_of_every_frame(self, segmenter: Segmenter, video: Path, tmp_path: Path) -> None:
        folder = tmp_path / "labels"
        folder.mkdir()
        for name in ("000009.png", "notes.txt"):  # of a longer video, and of somebody else
            (folder / name).write_text("")
        segment_video(segmenter, video, tmp_path / "out.mp4", labels=folder)
        files = sorted(entry.name for entry in folder.iterdir())
        assert files == [*(f"{number:06}.png" for number in range(1, 7)), "notes.txt"]
        for number in range(6):
            with Image.open(folder / files[number]) as picture:
                assert np.unique(picture).tolist() == [number % 3]
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["clip.mp4", "labels", "out.mp4"]

    def test_are_whole_or_not_at_all(self, segmenter: Segmenter, video: Path, tmp_path: Path) -> None:
        class Interrupted(Segmenter):
            seen = 0

            def submit(self, image: object) -> object:
                self.seen += 1
                if self.seen > 3:
                    raise KeyboardInterrupt
                return super().submit(image)

        interrupted = Interrupted(segmenter.bundle, segmenter.backend)
        with pytest.raises(KeyboardInterrupt):
            segment_video(interrupted, video, tmp_path / "out.mp4", labels=tmp_path / "labels")
        assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]


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
