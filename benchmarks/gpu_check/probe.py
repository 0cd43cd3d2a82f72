"""A few small inferences on the GPU, for compute-sanitizer to watch: odd sizes, both precisions, a batch."""

from __future__ import annotations

import numpy as np

from atrous.crf import DenseCRF
from atrous.crf.cuda import CudaDenseCRF
from atrous.gpu import PyCudaDevice


def main() -> None:
    """Raises if a result is not that of the CPU core."""
    rng = np.random.default_rng(0)
    device = PyCudaDevice()
    for images, classes, height, width in ((1, 1, 1, 1), (2, 5, 17, 23), (1, 21, 40, 61), (1, 130, 9, 7)):
        probabilities = rng.dirichlet(np.ones(classes), size=(images, height, width)).transpose(0, 3, 1, 2)
        pictures = rng.integers(0, 256, size=(images, height, width, 3), dtype=np.uint8) // 8
        expected = np.stack([DenseCRF(iterations=2)(p, i) for p, i in zip(probabilities, pictures, strict=True)])
        for precision, limit in (("fp32", 1e-4), ("fp16", 1e-2)):
            for compatibility in (None, -np.eye(classes)):
                crf = CudaDenseCRF(iterations=2, precision=precision, compatibility=compatibility, device=device)
                worst = float(np.abs(crf(probabilities, pictures) - expected).max())
                if worst > limit:
                    message = f"{precision}, {classes} classes at {height}×{width}: differs from the CPU by {worst}"
                    raise SystemExit(message)
                crf.labels(probabilities, pictures)


if __name__ == "__main__":
    main()
