"""Model repositories: what is written, checked by Triton's own schema, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from atrous.bundle import Bundle, hash_file, stage_bundle
from atrous.errors import BundleError, ServeError
from atrous.manifest import EngineIdentity, EngineProfile
from atrous.serve.triton import TritonOptions, write_repository
from atrous.serve.triton.pbtxt import Word, pbtxt

ROOT = Path(__file__).parents[3]


def config_of(repository: Path, model: str) -> ModelConfig:
    """The configuration, of which Triton's schema knows every field."""
    return text_format.Parse((repository / model / "config.pbtxt").read_text(encoding="utf-8"), ModelConfig())


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestConfig:
    def test_python(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        assert write_repository([tiny_bundle.path], tmp_path) == ["tiny"]
        config = config_of(tmp_path, "tiny")
        assert (config.name, config.backend, config.max_batch_size) == ("tiny", "python", 0)
        inputs = {each.name: (each.data_type, list(each.dims), each.optional) for each in config.input}
        assert inputs == {"IMAGE": (2, [-1, -1, 3], True), "ENCODED": (2, [-1], True)}
        outputs = {each.name: (each.data_type, list(each.dims)) for each in config.output}
        assert outputs == {"LABELS": (2, [-1, -1]), "CONFIDENCE": (2, [-1, -1]), "PROBABILITIES": (11, [5, -1, -1])}
        (warm_up,) = config.model_warmup
        assert list(warm_up.inputs["IMAGE"].dims) == [64, 96, 3]
        assert config.version_policy.latest.num_versions == 1
        assert not config.response_cache.enable
        copy = tmp_path / "tiny" / "1" / "tiny.atrous"
        assert files_in(copy) == files_in(tiny_bundle.path)
        assert config.parameters["bundle_sha256"].string_value == hash_file(copy / "manifest.json")
        assert config.parameters["bundle"].string_value == copy.name

    def test_cpp_with_every_option(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        options = TritonOptions(
            flavour="cpp", instances=3, gpu=True, max_batch=8, batch_delay_us=500, queue=5, queue_timeout_ms=40,
            threads=2, warm_up=((8, 16), (32, 32)), cache=True, backend="openvino", precision="fp32",
            crf=True, link=True,
        )  # fmt: skip
        write_repository([tiny_bundle.path], tmp_path, options=options)
        config = config_of(tmp_path, "tiny")
        assert (config.backend, config.max_batch_size, [each.name for each in config.input]) == ("atrous", 8, ["IMAGE"])
        (group,) = config.instance_group
        assert (group.count, group.kind) == (3, group.KIND_GPU)
        batching = config.dynamic_batching
        assert (list(batching.preferred_batch_size), batching.max_queue_delay_microseconds) == ([8], 500)
        policy = batching.default_queue_policy
        assert (policy.max_queue_size, policy.default_timeout_microseconds, policy.timeout_action) == (5, 40000, 0)
        assert [each.name for each in config.model_warmup] == ["8x16", "32x32"]
        assert config.response_cache.enable
        texts = {name: each.string_value for name, each in config.parameters.items()}
        assert (texts["crf"], texts["threads"], texts["precision"]) == ("true", "2", "fp32")
        assert (tmp_path / "tiny" / "1" / "tiny.atrous").resolve() == tiny_bundle.path.resolve()
        assert not (tmp_path / "tiny" / "1" / "model.py").exists()

    def test_the_bare_network(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        options = TritonOptions(bare_network=True, max_batch=4)
        assert write_repository([tiny_bundle.path], tmp_path, options=options) == ["tiny", "tiny_network"]
        config = config_of(tmp_path, "tiny_network")
        assert (config.platform, config.max_batch_size, list(config.input[0].dims)) == (
            "onnxruntime_onnx",
            4,
            [3, -1, -1],
        )
        assert (config.default_model_filename, list(config.output[0].dims)) == ("model.onnx", [5, -1, -1])
        graph = tiny_bundle.find(kind="onnx")
        assert graph is not None
        assert hash_file(tmp_path / "tiny_network" / "1" / "model.onnx") == graph.sha256

    def test_engines_by_compute_capability(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        profile = EngineProfile((1, 3, 64, 96), (1, 3, 64, 96), (2, 3, 64, 96))
        path = tmp_path / "plans.atrous"
        shutil.copytree(tiny_bundle.path, path)
        with stage_bundle(path, overwrite=True) as staged:
            shutil.copytree(tiny_bundle.path, staged.path, dirs_exist_ok=True)
            for capability in ("8.9", "9.0"):
                file = f"engines/{capability}.plan"
                staged.write(file, capability.encode())
                identity = EngineIdentity("tensorrt", "10.13.0", capability, profile=profile)
                artifact = staged.artifact(file, kind="engine", precision="fp16", provenance={})
                staged.add(dataclasses.replace(artifact, engine=identity))
        repository = tmp_path / "models"
        write_repository([path], repository, options=TritonOptions(bare_network=True, max_batch=8))
        config = config_of(repository, "plans_engine")
        assert dict(config.cc_model_filenames) == {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
        assert (repository / "plans_engine" / "1" / "model_sm90.plan").read_bytes() == b"9.0"
        assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 2)
        assert (list(config.input[0].dims), list(config.output[0].dims)) == ([3, 64, 96], [5, 8, 12])

    def test_text_of_any_kind(self) -> None:
        text = pbtxt({"name": 'a "b" \\ ü\n', "max_batch_size": 3, "input": [{"name": "x", "dims": [-1, 2]}]})
        config = text_format.Parse(text, ModelConfig())
        assert (config.name, config.max_batch_size, list(config.input[0].dims)) == ('a "b" \\ ü\n', 3, [-1, 2])
        assert pbtxt({"kind": Word("KIND_CPU"), "on": True}) == "kind: KIND_CPU\non: true\n"


class TestModelCode:
    def test_is_formatted_for_reading(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        write_repository([tiny_bundle.path], tmp_path, options=TritonOptions(site_packages=("/a b", "C:\\x")))
        code = (tmp_path / "tiny" / "1" / "model.py").read_text(encoding="utf-8")
        assert 'SITE_PACKAGES = (\n    "/a b",\n    "C:\\\\x",\n)\n' in code
        ruff = [sys.executable, "-m", "ruff"]
        flags = ["--config", str(ROOT / "pyproject.toml"), "--stdin-filename", "model.py", "-"]
        done = subprocess.run([*ruff, "format", "--diff", *flags], input=code, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "")
        rules = ["--select", "F,E,W,I,B,D,UP,SIM,RET"]
        done = subprocess.run([*ruff, "check", *rules, *flags], input=code, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


class TestRefusals:
    def test_nothing_is_overwritten_without_a_word(
        self, tiny_bundle: Bundle, color_bundle: Bundle, tmp_path: Path
    ) -> None:
        write_repository([tiny_bundle.path], tmp_path)
        before = files_in(tmp_path)
        with pytest.raises(ServeError, match="tiny exists already"):
            write_repository([color_bundle.path, tiny_bundle.path], tmp_path, options=TritonOptions(flavour="cpp"))
        assert files_in(tmp_path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
        write_repository([tiny_bundle.path], tmp_path, options=TritonOptions(flavour="cpp"), overwrite=True)
        assert config_of(tmp_path, "tiny").backend == "atrous"
        assert [path.name for path in tmp_path.iterdir()] == ["tiny"]

    def test_a_folder_that_is_no_model_stays(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "notes.txt").write_text("mine")
        with pytest.raises(ServeError, match="is no model of Triton: refusing to replace it"):
            write_repository([tiny_bundle.path], tmp_path, overwrite=True)
        assert files_in(tmp_path) == {"tiny/notes.txt": b"mine"}

    def test_a_damaged_bundle_leaves_no_repository(
        self, tiny_bundle: Bundle, color_bundle: Bundle, tmp_path: Path
    ) -> None:
        damaged = tmp_path / "damaged.atrous"
        shutil.copytree(tiny_bundle.path, damaged)
        graph = next(damaged.glob("*.onnx"))
        graph.write_bytes(bytes(1) + graph.read_bytes()[1:])
        with pytest.raises(BundleError, match="SHA-256"):
            write_repository([color_bundle.path, damaged], tmp_path / "models")
        assert not (tmp_path / "models").exists()

    def test_names_that_collide_or_are_none(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        with pytest.raises(ServeError, match="would both be the model 'tiny'"):
            write_repository([tiny_bundle.path, tmp_path / "tiny.atrous"], tmp_path / "models")
        with pytest.raises(ServeError, match="is no name of a model"):
            write_repository([tmp_path / "a street.atrous"], tmp_path / "models")
        with pytest.raises(ServeError, match="at least one bundle"):
            write_repository([], tmp_path / "models")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"instances": 0}, "instances must be 1 or more; got 0"),
            ({"max_batch": 5000}, "max_batch must be 1024 at most; got 5000"),
            ({"warm_up": ((0, 5),)}, "from 1×1; got 0×5"),
        ],
    )
    def test_numbers_out_of_range(self, options: dict, message: str) -> None:
        with pytest.raises(ServeError, match=message):
            TritonOptions(**options)

    def test_a_file_in_the_way(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        (tmp_path / "models").write_text("a file")
        with pytest.raises(ServeError, match="cannot write the repository"):
            write_repository([tiny_bundle.path], tmp_path / "models")
        assert (tmp_path / "models").read_text() == "a file"
