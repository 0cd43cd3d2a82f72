"""Which of the tensors that a module returns is taken."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import atrous
from atrous.errors import ExportError
from atrous.exporter.outputs import with_one_output

SIZE = (8, 12)


class Pair(NamedTuple):
    scores: Tensor
    features: Tensor


@dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None


class Returning(nn.Module):
    """A network that gives its logits to `wrap`."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.wrap = wrap

    def forward(self, image: Tensor) -> object:
        return self.wrap(self.conv(image))


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda logits: logits, None),
        (lambda logits: {"out": logits, "aux": logits * 2}, None),
        (lambda logits: OrderedDict(loss=logits.sum(), logits=logits), None),
        (lambda logits: {"seg": logits, "boundary": logits * 2}, "seg"),
        (lambda logits: Answer(logits), None),
        (lambda logits: (logits, logits.mean(dim=(2, 3))), None),
        (lambda logits: [logits * 2, logits], 1),
        (lambda logits: Pair(logits, logits * 2), "scores"),
    ],
)
def test_the_logits_are_taken(wrap: Callable[[Tensor], object], output: str | int | None) -> None:
    network = Returning(wrap).eval()
    image = torch.randn(1, 3, *SIZE)
    with torch.inference_mode():
        assert torch.equal(with_one_output(network, SIZE, output)(image), network.conv(image))


def test_a_module_of_two_heads_is_exported(tmp_path: Path) -> None:
    network = Returning(lambda logits: {"seg": logits, "depth": logits * 2})
    options = atrous.ExportOptions(output="seg")
    bundle = atrous.export(network, tmp_path / "a.atrous", classes=["a", "b"], size=(16, 16), options=options)
    assert bundle.manifest.output.stride == 1


@pytest.mark.parametrize(
    ("wrap", "output", "said"),
    [
        (
            lambda logits: {"a": logits, "b": logits},
            None,
            r"returns 'a' \[1, 2, 8, 12\], 'b' .*ExportOptions\(output=",
        ),
        (lambda logits: (logits, logits), None, r"returns 0 \[1, 2, 8, 12\], 1 "),
        (lambda logits: {"a": logits}, "out", r"has no output 'out'; it returns 'a'"),
        (lambda logits: logits, "out", "returns one tensor; there is no output 'out'"),
        (lambda _: "logits", None, "returns str; expected one float32 tensor"),
    ],
)
def test_what_is_not_clear_is_asked(wrap: Callable[[Tensor], object], output: str | int | None, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        with_one_output(Returning(wrap).eval(), SIZE, output)
