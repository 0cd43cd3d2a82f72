"""The command line, run as a user runs it: the real entry point in this process, its output captured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Command, Outcome
from PIL import Image

from atrous.cli import main


@pytest.fixture
def atrous(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`atrous("run", bundle, photo)` → outcome. No command may end in a traceback."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["atrous", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """A folder with three pictures, one of them a JPEG, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder
