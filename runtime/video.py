"""Videos in and out, through PyAV (FFmpeg)."""

from __future__ import annotations

import contextlib
import struct
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..arguments import check_arguments
from ..errors import AtrousError, ImageError, importing
from ..files import write_whole
from .result import DEFAULT_ALPHA, check_alpha
from .segmenter import Segmenter

_DEFAULT_FPS: Final = 25
#: Names of the labels of frames.
_LABEL_FILES: Final = "[0-9][0-9][0-9][0-9][0-9][0-9].png"
#: Entries of a display matrix that are small beside the others are rounding.
_QUARTER_TOLERANCE: Final = 1e-3


@check_arguments
def segment_video(
    segmenter: Segmenter, source: Path, target: Path, *, alpha: float = DEFAULT_ALPHA, labels: Path | None = None
) -> tuple[int, dict[str, float]]:
    """Segment every frame of a video and write the overlays as H.264 in an MP4 file, whole or not at all.

    Frames are segmented and written upright, as the display matrix of the video says.

    Args:
        source: any video that FFmpeg decodes.
        target: the `.mp4` to write.
        alpha: share of the classes' colours in the overlay, 0 to 1.
        labels: a folder for the labels of every frame, `000001.png` and so on; those of an earlier video are removed.

    Returns:
        Number of frames, and mean milliseconds by stage.

    Raises:
        MissingDependencyError: PyAV is not installed.
        ImageError: `source` is not a readable video, or is not rotated by quarter turns; `target` or `labels` cannot
            be written; `alpha` is out of range.
    """
    av = _import_av()
    check_alpha(alpha)
    if target.suffix.lower() != ".mp4" or not target.parent.is_dir():
        raise ImageError(
            f"cannot write {target}: expected a name that ends in .mp4, in an existing folder", path=target
        )
    try:
        with write_whole(target) as temporary, _label_files(labels) as folder:
            return _segment_into(segmenter, source, _Output(temporary, alpha, folder), av)
    except AtrousError:
        raise
    except Exception as exc:  # FFmpegError, OSError, and ValueError or AttributeError where a stream is odd
        raise ImageError(f"cannot segment the video {source} into {target}: {exc}", path=source) from exc


@dataclass(frozen=True)
class _Output:
    """Files that are written.

    Attributes:
        video: an MP4 file, whatever its name ends in.
        alpha: share of the classes' colours in it.
        labels: folder for the labels of each frame, or None.
    """

    video: Path
    alpha: float
    labels: Path | None


def _segment_into(segmenter: Segmenter, source: Path, files: _Output, av: Any) -> tuple[int, dict[str, float]]:  # noqa: ANN401
    """Segment a video into files; number of frames, and mean times."""
    totals: defaultdict[str, float] = defaultdict(float)
    count = 0
    with av.open(str(source)) as reader, av.open(str(files.video), "w", format="mp4") as writer:
        if not reader.streams.video:
            raise ImageError(f"{source} has no video stream", path=source)
        stream = reader.streams.video[0]
        stream.thread_type = "AUTO"
        output = None
        frames: deque[_Frame] = deque()  # decoding may run ahead of the results
        for result in segmenter.stream(_pictures(reader.decode(stream), frames, source)):
            for stage, value in result.timings_ms.items():
                totals[stage] += value
            count += 1
            frame = frames.popleft()
            if output is None:
                output = _add_output(writer, stream, result.labels.shape, frame)
            overlay = av.VideoFrame.from_image(result.overlay(files.alpha))
            overlay.pts, overlay.time_base = frame.pts, frame.time_base  # the frame rate may vary
            writer.mux(output.encode(overlay))
            if files.labels:
                result.save(files.labels / f"{count:06}.png")
        if output is None:
            raise ImageError(f"{source} has no frames", path=source)
        writer.mux(output.encode(None))
    return count, {stage: total / count for stage, total in totals.items()}


@dataclass(frozen=True)
class _Frame:
    """A frame that is being segmented.

    Attributes:
        pts: when it is shown, in units of `time_base`.
        transposed: rows and columns were exchanged to turn it upright.
    """

    pts: int
    time_base: Fraction
    transposed: bool


def _add_output(writer: Any, stream: Any, size: tuple[int, ...], frame: _Frame) -> Any:  # noqa: ANN401 - PyAV's
    """The stream of overlays of this size (height, width)."""
    output = writer.add_stream("libx264", rate=stream.average_rate or _DEFAULT_FPS)
    output.width, output.height = size[1] // 2 * 2, size[0] // 2 * 2  # 4:2:0 has even sizes
    output.pix_fmt = "yuv420p"
    output.codec_context.time_base = stream.time_base
    if aspect := stream.sample_aspect_ratio:  # of pixels that are not square
        output.codec_context.sample_aspect_ratio = 1 / aspect if frame.transposed else aspect
    return output


def _pictures(frames: Iterable[Any], decoded: deque[_Frame], source: Path) -> Iterator[NDArray[np.uint8]]:
    """Frames [H, W, 3] uint8 RGB, upright; what is to be known of each goes to `decoded`."""
    for frame in frames:
        turn = _turn(frame, source)
        decoded.append(_Frame(frame.pts, frame.time_base, turn.transposed))
        yield turn.apply(frame.to_ndarray(format="rgb24"))


@dataclass(frozen=True)
class _Turn:
    """Way from stored pixels to upright ones: rows and columns exchanged, then either of them reversed."""

    transposed: bool
    rows_reversed: bool
    columns_reversed: bool

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn pixels [H, W, 3]."""
        if self.transposed:
            pixels = pixels.transpose(1, 0, 2)
        rows, columns = (slice(None, None, -1 if each else 1) for each in (self.rows_reversed, self.columns_reversed))
        return np.ascontiguousarray(pixels[rows, columns])


def _turn(frame: Any, source: Path) -> _Turn:  # noqa: ANN401 - PyAV's
    """The turn in the frame's display matrix: x' = a·x + c·y, y' = b·x + d·y (libavutil/display.h).

    `VideoFrame.rotation` of PyAV is the angle alone, which for a mirrored image is wrong.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _Turn(transposed=False, rows_reversed=False, columns_reversed=False)
    a, b, _, c, d = struct.unpack("=9i", bytes(data))[:5]
    straight, across = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, across) > _QUARTER_TOLERANCE * max(straight, across):
        raise ImageError(f"{source} is to be shown rotated by other than quarter turns; rotate it first", path=source)
    if across > straight:
        return _Turn(transposed=True, rows_reversed=b < 0, columns_reversed=c < 0)
    return _Turn(transposed=False, rows_reversed=d < 0, columns_reversed=a < 0)


@contextlib.contextmanager
def _label_files(folder: Path | None) -> Iterator[Path | None]:
    """A folder whose files replace those in `folder` when the block ends without an exception."""
    if folder is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        yield Path(temporary)
        folder.mkdir(exist_ok=True)
        for old in folder.glob(_LABEL_FILES):
            old.unlink()
        for new in Path(temporary).iterdir():
            new.replace(folder / new.name)


def _import_av() -> Any:  # noqa: ANN401 - loaded on use
    with importing("video", purpose="video"):
        import av
    return av
