from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import Command
from safetensors.torch import save_file

from atrous import __version__
from atrous.bundle import Bundle
from atrous.exporter.models import create_model

VERBS = (
    "export",
    "pack",
    "run",
    "batch",
    "crf",
    "verify",
    "eval",
    "tune",
    "serve",
    "studio",
    "triton",
    "inspect",
    "doctor",
)


def module(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m atrous …` in a process of its own."""
    command = [sys.executable, "-m", "atrous", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment, check=False)


class TestHelp:
    @pytest.mark.parametrize("verb", VERBS)
    def test_of_every_verb_has_an_example(self, atrous: Command, verb: str) -> None:
        outcome = atrous(verb, "--help")
        assert outcome.code == 0
        assert f"Example: atrous {verb}" in outcome.out

    @pytest.mark.parametrize("verb", ["export", "pack"])
    def test_shows_brackets(self, atrous: Command, verb: str) -> None:
        assert '[{"name": …, "color": [r, g, b]}, …]' in atrous(verb, "--help").out

    def test_lists_the_verbs(self, atrous: Command) -> None:
        outcome = atrous("--help")
        assert outcome.code == 0
        assert all(verb in outcome.out for verb in VERBS)

    def test_version(self, atrous: Command) -> None:
        assert atrous("--version").out == f"atrous {__version__}\n"


class TestWrongUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("segment",),
            ("run",),
            ("run", "a.atrous"),
            ("inspect", "a.atrous", "--yaml"),
            ("export", "a.pth", "a.atrous", "--head", "scores"),
        ],
    )
    def test_is_exit_code_2(self, atrous: Command, arguments: tuple[str, ...]) -> None:
        outcome = atrous(*arguments)
        assert (outcome.code, outcome.out) == (2, "")
        assert "Usage" in outcome.err

    def test_nothing_at_all_shows_the_help(self, atrous: Command) -> None:
        assert "export" in atrous().out


class TestErrors:
    @pytest.mark.parametrize("verb", ["inspect", "verify"])
    def test_are_one_message_and_exit_code_1(self, atrous: Command, verb: str, tmp_path: Path) -> None:
        outcome = atrous(verb, tmp_path / "missing.atrous")
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err.startswith("BundleError: ")
        assert "is not an atrous bundle" in outcome.err

    def test_take_paths_literally_and_whole(self, atrous: Command, tmp_path: Path) -> None:
        name = f"[red]{'long ' * 50}[/x] :smile:.atrous"
        assert name in atrous("inspect", tmp_path / name).err

    def test_a_name_that_no_file_can_have(self, atrous: Command, tmp_path: Path) -> None:
        outcome = atrous("run", tmp_path / "a.atrous", "x" * 5000)
        assert outcome.code == 1
        assert "ImageError: " in outcome.err


class TestProcess:
    """What only a process of its own shows."""

    def test_without_a_terminal_or_unicode(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        done = module("inspect", tiny_bundle.path, cwd=tmp_path, PYTHONIOENCODING="ascii", LC_ALL="C")
        assert done.returncode == 0, done.stderr
        assert "tiny" in done.stdout

    def test_missing_packages_are_named_with_their_extra(self, tmp_path: Path) -> None:
        names = tmp_path / "names.txt"
        names.write_text("road\n")
        without_onnx = "import sys; sys.modules['onnx'] = None; from atrous.cli import main; main()"
        command = [sys.executable, "-c", without_onnx, "pack", "model.onnx", "out.atrous", "--classes", names]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("MissingDependencyError: atrous pack needs 'onnx'")
        assert "pip install 'atrous[export]'" in done.stderr

    def test_ctrl_c_during_an_export(self, tmp_path: Path) -> None:
        weights = tmp_path / "lite0.safetensors"
        save_file(create_model("deeplabv3plus_efficientnet_lite0", num_classes=3).state_dict(), weights)
        folder = tmp_path / "out"
        options = ("--arch", "deeplabv3plus_efficientnet_lite0", "--size", "32x32")
        command = [sys.executable, "-m", "atrous", "export", weights, folder / "street.atrous", *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            while not (folder.is_dir() and list(folder.iterdir())):
                assert process.poll() is None, "ended before it was interrupted"
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate()
        assert process.returncode == 130
        assert "Traceback" not in error
        assert list(folder.iterdir()) == []
