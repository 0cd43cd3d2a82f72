"""Videos in and out, through PyAV (FFmpeg)."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import AtrousError, ImageError, importing
from ..files import write_whole
from .segmenter import Segmenter

_DEFAULT_FPS: Final = 25


def segment_video(segmenter: Segmenter, source: Path, target: Path) -> tuple[int, dict[str, float]]:
    """Segment every frame of a video and write the overlays as H.264 in an MP4 file, whole or not at all.

    Args:
        source: any video that FFmpeg decodes.
        target: the `.mp4` to write.

    Returns:
        Number of frames, and mean milliseconds by stage.

    Raises:
        MissingDependencyError: PyAV is not installed.
        ImageError: `source` is not a readable video, or `target` cannot be written.
    """
    av = _import_av()
    if target.suffix.lower() != ".mp4" or not target.parent.is_dir():
        raise ImageError(
            f"cannot write {target}: expected a name that ends in .mp4, in an existing folder", path=target
        )
    try:
        with write_whole(target) as temporary:
            return _segment_into(segmenter, source, temporary, av)
    except AtrousError:
        raise
    except Exception as exc:  # FFmpegError, OSError, and ValueError or AttributeError where a stream is odd
        raise ImageError(f"cannot segment the video {source} into {target}: {exc}", path=source) from exc


def _segment_into(segmenter: Segmenter, source: Path, file: Path, av: Any) -> tuple[int, dict[str, float]]:  # noqa: ANN401
    """Segment a video into an MP4 file, whatever its name ends in; number of frames, and mean times."""
    totals: defaultdict[str, float] = defaultdict(float)
    count = 0
    with av.open(str(source)) as reader, av.open(str(file), "w", format="mp4") as writer:
        if not reader.streams.video:
            raise ImageError(f"{source} has no video stream", path=source)
        stream = reader.streams.video[0]
        stream.thread_type = "AUTO"
        output = writer.add_stream("libx264", rate=stream.average_rate or _DEFAULT_FPS)
        output.width, output.height = stream.width // 2 * 2, stream.height // 2 * 2  # 4:2:0 has even sizes
        output.pix_fmt = "yuv420p"
        output.codec_context.time_base = stream.time_base
        times: deque[tuple[int, Fraction]] = deque()  # decoding may run ahead of the results
        for result in segmenter.stream(_pictures(reader.decode(stream), times)):
            for stage, value in result.timings_ms.items():
                totals[stage] += value
            count += 1
            overlay = av.VideoFrame.from_image(result.overlay())
            overlay.pts, overlay.time_base = times.popleft()  # the frame rate may vary
            writer.mux(output.encode(overlay))
        writer.mux(output.encode(None))
    if count == 0:
        raise ImageError(f"{source} has no frames", path=source)
    return count, {stage: total / count for stage, total in totals.items()}


def _pictures(frames: Iterable[Any], times: deque[tuple[int, Fraction]]) -> Iterator[NDArray[np.uint8]]:
    """Frames [H, W, 3] uint8 RGB; when each is shown goes to `times`."""
    for frame in frames:
        times.append((frame.pts, frame.time_base))
        yield frame.to_ndarray(format="rgb24")


def _import_av() -> Any:  # noqa: ANN401 - loaded on use
    with importing("video", purpose="video"):
        import av
    return av
