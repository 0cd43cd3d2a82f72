"""Videos in and out, through PyAV (FFmpeg)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from ..errors import ImageError, MissingDependencyError
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
    temporary = target.with_name(f".{target.stem}.tmp{target.suffix}")
    totals: defaultdict[str, float] = defaultdict(float)
    count = 0
    try:
        with av.open(str(source)) as reader, av.open(str(temporary), "w") as writer:
            if not reader.streams.video:
                raise ImageError(f"{source} has no video stream", path=source)
            stream = reader.streams.video[0]
            stream.thread_type = "AUTO"
            output = writer.add_stream("libx264", rate=stream.average_rate or _DEFAULT_FPS)
            output.width, output.height = stream.width // 2 * 2, stream.height // 2 * 2  # 4:2:0 has even sizes
            output.pix_fmt = "yuv420p"
            for frame in reader.decode(stream):
                result = segmenter(frame.to_ndarray(format="rgb24"))
                for stage, value in result.timings_ms.items():
                    totals[stage] += value
                count += 1
                writer.mux(output.encode(av.VideoFrame.from_image(result.overlay())))
            writer.mux(output.encode(None))
        temporary.replace(target)
    except (av.FFmpegError, OSError) as exc:
        raise ImageError(f"cannot segment the video {source}: {exc}", path=source) from exc
    finally:
        temporary.unlink(missing_ok=True)
    return count, {stage: total / count for stage, total in totals.items()}


def _import_av() -> Any:  # noqa: ANN401 - loaded on use
    try:
        import av
    except ImportError as exc:
        raise MissingDependencyError("av", extra="video", purpose="video") from exc
    return av
