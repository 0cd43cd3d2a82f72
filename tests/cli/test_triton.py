from __future__ import annotations

import json
from pathlib import Path

from command_line import Command

from atrous.bundle import Bundle


class TestTriton:
    def test_help_has_an_example(self, atrous: Command) -> None:
        assert "Example: atrous triton" in atrous("triton", "--help").out

    def test_writes_a_model_for_each_bundle(
        self, atrous: Command, tiny_bundle: Bundle, color_bundle: Bundle, tmp_path: Path
    ) -> None:
        repository = tmp_path / "models"
        outcome = atrous("triton", tiny_bundle.path, color_bundle.path, "--repository", repository, "--flavour", "cpp")
        assert outcome.code == 0
        assert outcome.out.splitlines()[:2] == [f"wrote {repository / 'color'}", f"wrote {repository / 'tiny'}"]
        assert f"tritonserver --model-repository {repository}" in outcome.out
        again = atrous("triton", tiny_bundle.path, "--repository", repository)
        assert (again.code, again.out) == (1, "")
        assert again.err.startswith("ServeError: ")
        replaced = atrous("triton", tiny_bundle.path, "--repository", repository, "--overwrite", "--json")
        assert json.loads(replaced.out) == {"repository": str(repository), "models": ["tiny"]}

    def test_a_size_that_is_none(self, atrous: Command, tiny_bundle: Bundle, tmp_path: Path) -> None:
        outcome = atrous("triton", tiny_bundle.path, "--repository", tmp_path / "models", "--warm-up", "big")
        assert outcome.code == 2
        assert "'big' is not a size" in outcome.err
