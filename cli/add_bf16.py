"""`atrous add-bf16`: evidence that a bundle keeps its labels in the bfloat16 of this kind of CPU."""

from __future__ import annotations

import dataclasses

from ..arguments import check_arguments
from ..bundle import Bundle
from ..errors import importing
from .console import JsonFlag, print_json, print_line, status
from .inputs import find_images
from .options import BundleArgument, ComparedImagesOption, ComparedMasksOption


@check_arguments
def add_bf16(
    bundle: BundleArgument,
    images: ComparedImagesOption = None,
    masks: ComparedMasksOption = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Compare the FP32 graph in bfloat16 with FP32, and record that its labels hold on this kind of CPU.

    `--fast` then takes bfloat16. Example: atrous add-bf16 street.atrous --images val/images --masks val/masks
    """
    with importing("export", purpose="atrous add-bf16"):
        from ..exporter.bf16 import add_bf16 as verify_in_bf16

    paths = find_images(images) if images else []
    with status("comparing"):
        extended, check = verify_in_bf16(Bundle.open(bundle), images=paths, masks=masks)
    if as_json:
        print_json({"bundle": str(extended.path), "verification": dataclasses.asdict(check)})
        return
    drop = "" if check.miou_delta is None else f", mean IoU {check.miou_delta:+.4f}"
    print_line(f"{check.artifact}: max |Δ| {check.max_abs:.3g}, agreement {check.argmax_agreement:.4%}{drop}")
    print_line(f"recorded for {check.cpu}; `--fast` takes it")
