"""The networks that `make gpu-bench` runs, as bundles with FP32, FP16 and INT8 graphs; what is there is not made again.

    GPU_CHECK_BUNDLES=bundles python benchmarks/gpu_check/networks.py

prepares them for a machine that has no time or no packages for it (torch, onnxscript, onnx-ir); needs no GPU. Prints
JSON lines.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from steps import ROOT, sized

from atrous.errors import AtrousError

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from torch import nn

    from atrous.exporter.trained_model import TrainedModel

FOLDER = Path(os.environ.get("GPU_CHECK_BUNDLES", ROOT / "build" / "gpu_bundles"))
TRAINED = ROOT / "examples" / "train_camvid"


@dataclass(frozen=True)
class Network:
    """One of them.

    Attributes:
        name: an architecture with seeded weights, or "street", the demo's network with those it was trained to.
        size: of its input; the only one that its graphs take.
    """

    name: str
    size: tuple[int, int]

    @property
    def path(self) -> Path:
        """Where its bundle is kept."""
        return FOLDER / f"{self.name}-{self.size[0]}x{self.size[1]}.atrous"

    def model(self) -> nn.Module:
        """The network in PyTorch, in eval mode."""
        from seeded_networks import seeded_model

        return seeded_model(self.name) if self.name != "street" else _trained().model.eval()

    def make(self) -> None:
        """Its bundle, made anew; there is none until it is complete."""
        from seeded_networks import export_seeded

        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            path = Path(folder) / self.path.name
            if self.name == "street":
                _export_trained(self.size, path)
            else:
                export_seeded(self.name, self.size, path)
            path.rename(self.path)

    def picture(self) -> NDArray[np.uint8]:
        """What it is run on, [H, W, 3] uint8: shading, regions with hard edges, and noise."""
        from atrous.exporter.verify import synthetic_photo

        return synthetic_photo(np.random.default_rng(1), self.size)


def _trained() -> TrainedModel:
    from atrous.exporter.classes import read_classes
    from atrous.exporter.trained_model import load_trained

    return load_trained(TRAINED / "deeplab.safetensors", classes=read_classes(TRAINED / "classes.json"))


def _export_trained(size: tuple[int, int], path: Path) -> None:
    from seeded_networks import add_precisions

    import atrous

    trained = _trained()
    normalization, align_corners = trained.architecture.normalization, trained.architecture.align_corners
    bundle = atrous.export(
        trained.model,
        path,
        classes=trained.classes,
        size=size,
        preprocessing=atrous.Preprocessing(normalization),
        align_corners=align_corners,
    )
    add_precisions(bundle)


NETWORKS = sized(
    [
        Network("street", (368, 480)),
        Network("deeplabv3_resnet50", (513, 513)),
        Network("deeplabv3_resnet101", (513, 513)),
    ],
    rehearsal=[Network("street", (64, 80))],
)


def main() -> None:
    """Makes what is missing."""
    for network in NETWORKS:
        row: dict[str, Any] = {"network": network.name, "size": network.size}
        start = time.monotonic()
        if network.path.exists():
            row["outcome"] = "was there"
        else:
            try:
                network.make()
                row["outcome"] = "made"
            except (AtrousError, ImportError) as exc:
                row["outcome"] = f"not made: {exc}"
        print(json.dumps({**row, "seconds": round(time.monotonic() - start, 1)}), flush=True)


if __name__ == "__main__":
    main()
