"""Published weights, from a server on this machine that answers as the publishers' do."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest
import torch
from safetensors.torch import save_file
from torch import hub

from atrous.errors import CheckpointError
from atrous.exporter import pretrained
from atrous.exporter.models import create_model
from atrous.exporter.models.adapters import foreign_names
from atrous.exporter.pretrained import TORCHVISION_FILES, fetch_pretrained
from atrous.exporter.trained_model import load_trained

NAME = "deeplabv3_mobilenet_v3_large"
REPO = "someone/deeplab"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = "---\nlicense: apple-ascl\n---\n# A model\n"
#: What google/deeplabv3_mobilenet_v2_1.0_513 says of itself, with fewer classes.
CONFIG = {
    "architectures": ["MobileNetV2ForSemanticSegmentation"],
    "output_stride": 8,
    "id2label": {"0": "background", "1": "cat", "2": "dog"},
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; paths of the hub's protocol with its headers, where `resolve` is in the path."""

    def do_GET(self) -> None:
        if not self._answer_hub(body=True):
            super().do_GET()

    def do_HEAD(self) -> None:
        if not self._answer_hub(body=False):
            super().do_HEAD()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def _answer_hub(self, *, body: bool) -> bool:
        root = Path(self.directory)
        if self.path.startswith(f"/api/models/{REPO}"):
            paths = sorted((root / REPO).iterdir())
            info: object = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": path.name} for path in paths]}
            if "/tree/" in self.path:
                info = [
                    {
                        "type": "file",
                        "path": path.name,
                        "size": path.stat().st_size,
                        "oid": _git_sha1(path.read_bytes()),
                    }
                    for path in paths
                ]
            content = json.dumps(info).encode()
            headers = {"Content-Type": "application/json"}
        elif self.path.startswith(f"/{REPO}/resolve/"):
            content = (root / REPO / self.path.rpartition("/")[2]).read_bytes()
            large = self.path.endswith(".safetensors")
            etag = hashlib.sha256(content).hexdigest() if large else _git_sha1(content)
            headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        else:
            return False
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)
        return True


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def foreign_weights(name: str, source: str, classes: int) -> dict[str, torch.Tensor]:
    """Random weights of a network under the names of its publisher."""
    model = create_model(name, num_classes=classes)
    names = foreign_names(model, source, ())
    assert names is not None
    keys = {key: key.rpartition(".") for key in model.state_dict()}
    return {f"{names[module]}.{last}": model.state_dict()[key] for key, (module, _, last) in keys.items()}


@pytest.fixture
def torchvision(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, torch.Tensor], Path]:
    """Weights that a server publishes as torchvision does, and the file that the cache has them in."""
    folder, address = served
    weights = foreign_weights(NAME, "torchvision", 21)
    torch.save(weights | {"aux_classifier.0.weight": torch.zeros(1)}, folder / "weights")
    digest = hashlib.sha256((folder / "weights").read_bytes()).hexdigest()
    file = f"{NAME}-{digest[:8]}.pth"
    (folder / "weights").rename(folder / file)
    monkeypatch.setattr(pretrained, "TORCHVISION_URL", address)
    monkeypatch.setattr(pretrained, "TORCHVISION_FILES", {NAME: file})
    monkeypatch.setattr(hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return weights, tmp_path / "torch" / "hub" / "checkpoints" / file


def test_the_names_are_those_of_architectures_and_hashes() -> None:
    assert all(len(file.removesuffix(".pth").rpartition("-")[2]) == 8 for file in TORCHVISION_FILES.values())
    assert all(create_model(name, num_classes=2) is not None for name in TORCHVISION_FILES if name == NAME)


def test_torchvision_weights_come_with_classes_license_and_hash(
    torchvision: tuple[dict[str, torch.Tensor], Path], served: tuple[Path, str]
) -> None:
    weights, cached = torchvision
    found = fetch_pretrained(f"torchvision:{NAME}")
    assert (found.path, found.architecture) == (cached, NAME)
    assert found.classes is not None
    assert [(entry.name, entry.color) for entry in found.classes[:3]] == [
        ("background", (0, 0, 0)),
        ("aeroplane", (128, 0, 0)),
        ("bicycle", (0, 128, 0)),
    ]
    assert len(found.classes) == 21
    assert found.license is not None
    assert "BSD-3-Clause" in found.license
    assert found.origin["sha256"].startswith(cached.stem.rpartition("-")[2])
    trained = load_trained(found.path, architecture=found.architecture, classes=found.classes)
    assert torch.equal(trained.model.state_dict()["classifier.weight"], weights["classifier.4.weight"])
    served[0].joinpath(cached.name).unlink()
    assert fetch_pretrained(f"torchvision:{NAME}").path == cached  # from the cache


def test_a_file_in_the_cache_that_was_not_published(torchvision: tuple[dict[str, torch.Tensor], Path]) -> None:
    _, cached = torchvision
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"is not what was published: its hash begins with .* Delete it"):
        fetch_pretrained(f"torchvision:{NAME}")


def test_a_download_that_was_not_published(
    torchvision: tuple[dict[str, torch.Tensor], Path], served: tuple[Path, str]
) -> None:
    _, cached = torchvision
    (served[0] / cached.name).write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"cannot download .* invalid hash value"):
        fetch_pretrained(f"torchvision:{NAME}")
    assert not cached.exists()


def test_without_a_network_the_message_says_where_the_file_goes(
    torchvision: tuple[dict[str, torch.Tensor], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cached = torchvision
    monkeypatch.setattr(pretrained, "TORCHVISION_URL", "http://127.0.0.1:1/")
    with pytest.raises(CheckpointError) as caught:
        fetch_pretrained(f"torchvision:{NAME}")
    said = str(caught.value)
    assert f"cannot download http://127.0.0.1:1/{cached.name}" in said
    assert f"put it at {cached}" in said
    assert f"atrous export {cached.name} OUT --arch {NAME}" in said


@pytest.mark.parametrize("name", ["torchvision:fcn_resnet50", "hf:", "hf:one", "deeplabv3_resnet50", "hf:a/b/c", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"unknown pretrained weights .*torchvision:deeplabv3_resnet101, .*hf:"):
        fetch_pretrained(name)


@pytest.fixture
def hugging_face(served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a repository that is served as Hugging Face does."""
    constants = needs.HUGGINGFACE_HUB.load("huggingface_hub.constants")
    folder, address = served
    repository = folder / REPO
    repository.mkdir(parents=True)
    weights = foreign_weights("deeplabv3_mobilenet_v2_hf", "hf", 3)
    save_file({key: value.contiguous() for key, value in weights.items()}, repository / "model.safetensors")
    (repository / "config.json").write_text(json.dumps(CONFIG))
    (repository / "README.md").write_text(CARD)
    (repository / "preprocessor_config.json").write_text(
        json.dumps({"do_rescale": True, "rescale_factor": 1 / 127.5, "do_normalize": False})
    )
    # HF_ENDPOINT is read when the package is imported, which another test may have done.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address.rstrip("/"))
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address.rstrip("/"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return repository


def test_a_repository_of_hugging_face_says_what_it_is(hugging_face: Path) -> None:
    found = fetch_pretrained(f"hf:{REPO}")
    assert (found.license, found.origin) == ("apple-ascl", {"pretrained": f"hf:{REPO}", "revision": COMMIT})
    assert hugging_face not in found.path.parents
    trained = load_trained(found.path)
    assert trained.architecture.name == "deeplabv3_mobilenet_v2_hf"
    assert (trained.output_stride, [entry.name for entry in trained.classes]) == (8, ["background", "cat", "dog"])


@pytest.mark.usefixtures("hugging_face")
def test_a_damaged_file_of_the_hubs_cache() -> None:
    path = fetch_pretrained(f"hf:{REPO}").path / "model.safetensors"
    path.resolve().write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match="is not what was published"):
        fetch_pretrained(f"hf:{REPO}")


def test_a_repository_that_is_not_there(hugging_face: Path) -> None:
    with pytest.raises(CheckpointError, match=r"(?s)cannot download nobody/nothing.*atrous export FOLDER OUT"):
        fetch_pretrained("hf:nobody/nothing")
    assert hugging_face.exists()
