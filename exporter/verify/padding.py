"""Cost of padding: labels of a padded image against those of the network on the image as it is."""

from __future__ import annotations

import numpy as np

from ...arrays import Labels
from ...manifest import Manifest, PaddingCost, Size
from ...runtime.band_images import Pixels
from ...runtime.channels import label_logits
from ...runtime.postprocess import upsample_labels
from ...runtime.preprocess import Geometry, plan_geometry, prepare_image
from .compare import Infer
from .coverage import odd_sizes
from .inputs import synthetic_photo


def measure_padding(infer: Infer, manifest: Manifest) -> PaddingCost | None:
    """Share of pixels whose label padding does not change, on synthetic photos of odd sizes.

    Args:
        infer: runs the network on any size.
        manifest: describes input and output.

    Returns:
        None where nothing is padded, and where the network takes none of the sizes, so that there is nothing to
        compare with.
    """
    policy = manifest.input.size
    if manifest.input.resize != "none" or (policy.multiple == 1 and not policy.is_fixed):
        return None
    generator = np.random.default_rng(0)
    same, pixels, measured = 0, 0, []
    for size in odd_sizes(policy):
        photo = synthetic_photo(generator, size, manifest.input.bands)
        padded_size = plan_geometry(size, manifest.input).input_size
        try:
            plain, padded = (_labels(infer, photo, each, manifest) for each in (size, padded_size))
        except Exception:  # noqa: S112 - a network that does not take a size says so in its own words
            continue
        same += int((plain == padded).sum())
        pixels += plain.size
        measured.append(size)
    return PaddingCost(same / pixels, tuple(measured)) if measured else None


def _labels(infer: Infer, photo: Pixels, input_size: Size, manifest: Manifest) -> Labels:
    (logits,) = infer(prepare_image(photo, input_size, manifest.input)[None])
    geometry = Geometry((photo.shape[0], photo.shape[1]), input_size, manifest.input.resize)
    logits = label_logits(logits, manifest.output.channels)
    return upsample_labels(logits, geometry, align_corners=manifest.output.align_corners)
