"""What the extras are for, done once each. Runs inside the environment that is looked at: knows nothing but atrous.

    python -I uses.py USE BUNDLE PHOTO

Prints one JSON object on the last line.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import atrous


def core(bundle: Path, photo: Path) -> dict[str, Any]:
    """Segments the photo in ONNX Runtime, with the CRF."""
    return _segment(bundle, photo, "onnxruntime")


def cpu(bundle: Path, photo: Path) -> dict[str, Any]:
    """Segments the photo in OpenVINO, with the CRF."""
    return _segment(bundle, photo, "openvino")


def export(_bundle: Path, _photo: Path) -> dict[str, Any]:
    """Exports a small network and has it verified."""
    from atrous.exporter.models import create_model

    model = create_model("deeplabv3plus_mobilenet_v2", num_classes=3)
    with tempfile.TemporaryDirectory() as folder:
        made = atrous.export(model, Path(folder) / "small.atrous", classes=["road", "sky", "other"], size=(65, 97))
        return {"artifacts": [artifact.file for artifact in made.manifest.artifacts]}


def tensorrt_rtx(bundle: Path, _photo: Path) -> dict[str, Any]:
    """Builds an engine for a GPU that is not here, and has no PyCUDA to do it with."""
    if importlib.util.find_spec("pycuda"):
        raise SystemExit("PyCUDA is installed, which engines are built without")
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(bundle, Path(folder) / "street.atrous")
        _, built = atrous.build_engine(atrous.Bundle.open(copy), precision="fp32", backend="tensorrt-rtx", sm=["89"])
        return {"engines": [artifact.file for artifact in built]}


def video(bundle: Path, photo: Path) -> dict[str, Any]:
    """Segments a film of four frames."""
    import av
    from PIL import Image

    from atrous.runtime.video import segment_video

    picture = Image.open(photo).convert("RGB").resize((320, 240))
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        with av.open(str(film), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            for _ in range(4):
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode())
        frames, _ = segment_video(atrous.load(bundle, backend="onnxruntime"), film, Path(folder) / "labels.mp4")
        return {"frames": frames}


def serve(bundle: Path, photo: Path) -> dict[str, Any]:
    """Serves the bundle, and has the photo segmented over HTTP."""
    import subprocess
    from urllib.request import urlopen

    command = [sys.executable, "-I", "-m", "atrous", "serve", str(bundle), "--port=0", "--backend=onnxruntime"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            with urlopen(f"{url}/segment?format=json", data=photo.read_bytes()) as answer:
                found = json.load(answer)
        finally:
            server.terminate()
    return {"classes": len(found["segments"]), "exit_code": server.returncode}


USES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "core": core,
    "cpu": cpu,
    "export": export,
    "tensorrt-rtx": tensorrt_rtx,
    "video": video,
    "serve": serve,
}


def _segment(bundle: Path, photo: Path, backend: str) -> dict[str, Any]:
    result = atrous.load(bundle, backend=backend, crf=True)(photo)
    return {
        "labels": _digest(result.labels),
        "classes": len(np.unique(result.labels)),
        "marginals": _digest(_marginals(result.image)),
    }


def _marginals(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The CRF's on given probabilities: the same bits whatever compiled it, with no network before it."""
    from atrous.crf import CRFParams, DenseCRF

    draws = np.random.default_rng(0).random((5, *image.shape[:2]), np.float32) + np.float32(0.1)
    probabilities = draws / draws.sum(axis=0, keepdims=True)
    return DenseCRF(CRFParams.deeplab_v2_resnet(), iterations=10)(probabilities, image)


def _digest(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def main() -> None:
    """Does one of them."""
    name, bundle, photo = sys.argv[1:]
    from atrous import _native

    where = {"python": platform.python_version(), "package": str(Path(atrous.__file__).parent), "isa": _native.isa()}
    print(json.dumps(where | USES[name](Path(bundle), Path(photo))))


if __name__ == "__main__":
    main()
