"""The files in deploy/: Kubernetes' schemas take them, and they start the server that there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import needs
import pytest

FOLDER = Path(__file__).parents[1] / "deploy"
SCHEMAS = "1.33"


def documents(name: str) -> list[dict[str, Any]]:
    yaml = needs.KUBERNETES_VALIDATE.load("yaml")
    return list(yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("index", range(3))
def test_kubernetes_schemas_take_the_manifests(index: int) -> None:
    validator = needs.KUBERNETES_VALIDATE.load("kubernetes_validate")
    manifests = documents("kubernetes.yaml")
    assert len(manifests) == 3
    validator.validate(manifests[index], SCHEMAS, strict=True)


def test_containers_of_kserve_are_kubernetes_own() -> None:
    """KServe's resources have no schemas here; their containers are those of a pod."""
    validator = needs.KUBERNETES_VALIDATE.load("kubernetes_validate")
    runtime, service = documents("kserve.yaml")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}
    validator.validate({**pod, "spec": {"containers": runtime["spec"]["containers"]}}, SCHEMAS, strict=True)
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] == "atrous"


def test_probes_ask_what_the_server_answers_without_a_token() -> None:
    from atrous.serve.gate import OPEN_PATHS

    (container,) = documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]["containers"]
    probes = [container[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert set(probes) == set(OPEN_PATHS)


def test_options_are_the_verbs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the containers pass is understood: it fails only because the bundle is not there."""
    from atrous.cli import main

    (container,) = documents("kubernetes.yaml")[0]["spec"]["template"]["spec"]["containers"]
    (kserve,) = documents("kserve.yaml")[0]["spec"]["containers"]
    for arguments in (container["args"], kserve["args"]):
        options = [each for each in arguments if not each.startswith("--token-file")]
        monkeypatch.setattr(sys, "argv", ["atrous", "serve", "--port=0", *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert capsys.readouterr().err.startswith("BundleError: ")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_start_the_server_as_another_user_than_root(name: str) -> None:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT ")]
    assert 'atrous", "serve", "--host", "0.0.0.0"' in entry
    assert lines.index("USER 10001") < lines.index(entry)
