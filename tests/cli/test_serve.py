"""`atrous serve` before it serves: how it starts is in tests/serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Command

from atrous.bundle import Bundle
from atrous.serve.server import open_socket


def test_help_has_an_example_and_the_limits(atrous: Command) -> None:
    outcome = atrous("serve", "--help")
    assert outcome.code == 0
    assert "Example: atrous serve street.atrous --port 8000" in outcome.out
    assert "Limits" in outcome.out


def test_a_port_that_is_taken(atrous: Command, tiny_bundle: Bundle) -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        outcome = atrous("serve", tiny_bundle.path, "--port", port)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"ServeError: cannot listen at 127.0.0.1 port {port}: ")


def test_a_bundle_that_is_not_there(atrous: Command, tmp_path: Path) -> None:
    outcome = atrous("serve", tmp_path / "missing.atrous", "--port", 0)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("BundleError: ")


def test_a_precision_that_the_bundle_has_not(atrous: Command, tiny_bundle: Bundle) -> None:
    outcome = atrous("serve", tiny_bundle.path, "--port", 0, "--precision", "int8")
    assert outcome.code == 1
    assert outcome.err.startswith("EngineError: ")


def test_a_token_that_is_not_there(atrous: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
    outcome = atrous("serve", tiny_bundle.path, "--token-file", tmp_path / "token")
    assert outcome.code == 1
    assert outcome.err.startswith("ServeError: cannot read a token from ")


@pytest.mark.parametrize("option", ["--queue=0", "--max-pixels=0", "--port=70000", "--workers=0", "--max-batch=9"])
def test_wrong_usage(atrous: Command, tiny_bundle: Bundle, option: str) -> None:
    assert atrous("serve", tiny_bundle.path, option).code == 2


def test_a_missing_extra_is_named(tiny_bundle: Bundle) -> None:
    package = "httptools"
    code = f"import sys; sys.modules[{package!r}] = None; from atrous.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(tiny_bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"MissingDependencyError: atrous serve needs {package!r}" in done.stderr
    assert "pip install 'atrous[serve]'" in done.stderr
