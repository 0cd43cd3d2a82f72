"""What docs/serving.md tells people to run, run against a server that it tells them to start."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import needs
import numpy as np
import pytest
from http_servers import ServerProcess
from PIL import Image
from segmenters import picture

import atrous
from atrous.bundle import Bundle

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
BLOCKS = [(match[1], match[2]) for match in re.finditer(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]


@pytest.fixture(scope="module")
def folder(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    shutil.copytree(tiny_bundle.path, folder / "street.atrous")
    Image.fromarray(picture((50, 70))).save(folder / "photo.jpg")
    return folder


@pytest.fixture(scope="module")
def street(folder: Path):
    with ServerProcess(folder, folder / "street.atrous", "--backend=onnxruntime") as running:
        yield running


def test_the_server_is_started_as_it_says() -> None:
    assert ("console", "pip install 'atrous[serve]'\natrous serve street.atrous --port 8000\n") in BLOCKS


@needs.CURL.unless(shutil.which("curl") is not None)
def test_curl(street: ServerProcess, folder: Path, tiny: atrous.Segmenter) -> None:
    (commands,) = [text for kind, text in BLOCKS if kind == "bash"]
    for command in commands.splitlines():
        subprocess.run(shlex.split(command.replace(":8000", f":{street.port}")), cwd=folder, check=True)
    with Image.open(folder / "labels.png") as labels, Image.open(folder / "overlay.png") as overlay:
        np.testing.assert_array_equal(np.asarray(labels), tiny(folder / "photo.jpg").labels)
        assert (overlay.mode, overlay.size) == ("RGB", (70, 50))
    assert '"segments"' in (folder / "labels.json").read_text()


def test_python(street: ServerProcess, folder: Path, tiny_crf: atrous.Segmenter) -> None:
    (block,) = [text for kind, text in BLOCKS if kind == "python"]
    code = block.replace(":8000", f":{street.port}") + '\nnp.save("labels.npy", labels)\n'
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(folder / "labels.npy"), tiny_crf(folder / "photo.jpg").labels)


def test_its_limits_are_the_defaults() -> None:
    from atrous.serve.limits import Limits

    limits = Limits()
    assert f"| images that wait for each bundle | {limits.queue} |" in TEXT
    assert f"| bytes of a request | {limits.body_bytes >> 20} MiB |" in TEXT
    assert f"checked before it is decoded | {round(limits.pixels**0.5)}² |" in TEXT
    assert f"of all requests together | {limits.held_bytes >> 30} GiB |" in TEXT
    assert f"need | {limits.probability_bytes >> 20} MiB |" in TEXT
    assert f"not read | {limits.header_s:g}, {limits.body_s:g}, {limits.send_s:g} |" in TEXT
    assert f"they are refused above {limits.json_bytes >> 20} MiB" in TEXT
    assert f"as plain text | {limits.connections} |" in TEXT
