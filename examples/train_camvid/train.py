"""Train DeepLabv3+ EfficientNet-Lite0 on CamVid and write the checkpoint of the demo.

    python examples/train_camvid/train.py ../camvid --out out/train_camvid

Poly learning rate (arXiv 1606.00915 §4.1), AdamW, cross-entropy weighted by the square root of inverse class
frequency. The last epoch's weights are kept: the validation set chooses nothing.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from data import CLASSES, IGNORE, Split, augment, normalize
from imagenet import load_imagenet_weights
from rich.console import Console
from rich.progress import Progress, TextColumn
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from atrous.exporter.models import create_model

ARCHITECTURE = "deeplabv3plus_efficientnet_lite0"
_POLY_POWER = 0.9
_HEAD_LR_FACTOR = 4.0
_EVAL_MULTIPLE = 16
console = Console()


def class_weights(masks: Tensor) -> Tensor:
    """Square root of inverse frequency, mean 1: thin classes count without drowning the road."""
    counts = torch.bincount(masks.flatten().long(), minlength=IGNORE + 1)[: len(CLASSES)].float()
    weights = (counts.sum() / counts).sqrt()
    return weights / weights.mean()


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split) -> dict[str, object]:
    """MIoU and IoU per class at full resolution, void ignored."""
    model.eval()
    classes = len(CLASSES)
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    height, width = split.masks.shape[1:]
    pad = (0, -width % _EVAL_MULTIPLE, 0, -height % _EVAL_MULTIPLE)
    for image, mask in zip(split.images, split.masks, strict=True):
        padded = functional.pad(normalize(image[None]), pad)
        logits = functional.interpolate(model(padded), size=padded.shape[2:], mode="bilinear", align_corners=False)
        predicted = logits[0, :, :height, :width].argmax(0)
        valid = mask != IGNORE
        confusion += torch.bincount(mask[valid].long() * classes + predicted[valid], minlength=classes**2).view(
            classes, classes
        )
    hits = confusion.diag().float()
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    return {
        "miou": float(iou.mean()),
        "pixel_accuracy": float(hits.sum() / confusion.sum()),
        "iou": {name: round(float(value), 4) for name, value in zip(CLASSES, iou, strict=True)},
    }


def train(
    camvid: Annotated[Path, typer.Argument(help="Folder with train/ and val/.")],
    out: Annotated[Path, typer.Option(help="Where the checkpoint and the metrics go.")] = Path("out/train_camvid"),
    epochs: Annotated[int, typer.Option(min=1)] = 60,
    batch_size: Annotated[int, typer.Option(min=2)] = 8,
    crop: Annotated[int, typer.Option(min=64)] = 320,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = 5e-4,
    seed: int = 0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 lets PyTorch decide.")] = 0,
) -> None:
    """Train, report mIoU per class on val, write `deeplab.safetensors` (fp16) and `metrics.json`."""
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)  # denormals in batch-norm gradients slow a CPU down several times
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(seed)
    data, val = Split.load(camvid / "train"), Split.load(camvid / "val")
    model = create_model(ARCHITECTURE, num_classes=len(CLASSES), output_stride=16)
    load_imagenet_weights(model.backbone)
    model = model.to(device, memory_format=torch.channels_last)
    backbone = {id(p) for p in model.backbone.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if id(p) in backbone], "lr": learning_rate},
        {"params": [p for p in model.parameters() if id(p) not in backbone], "lr": learning_rate * _HEAD_LR_FACTOR},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-2)
    weights = class_weights(data.masks).to(device)
    steps_per_epoch = len(data.images) // batch_size
    steps = epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 - step / steps) ** _POLY_POWER)
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    with Progress(*Progress.get_default_columns(), TextColumn("{task.fields[status]}"), console=console) as progress:
        task = progress.add_task("training", total=steps, status="")
        for epoch in range(epochs):
            model.train()
            order = torch.randperm(len(data.images), generator=generator)
            for step in range(steps_per_epoch):
                batch = order[step * batch_size : (step + 1) * batch_size]
                images, masks = augment(data, batch, crop, generator)
                with torch.autocast(device.type, torch.bfloat16):
                    coarse = model(images.to(device))
                logits = functional.interpolate(coarse.float(), size=(crop, crop), mode="bilinear", align_corners=False)
                loss = functional.cross_entropy(logits, masks.to(device), weight=weights, ignore_index=IGNORE)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                progress.update(task, advance=1, status=f"epoch {epoch + 1} loss {loss.item():.3f}")
            if (epoch + 1) % 10 == 0:
                console.print(f"epoch {epoch + 1}: loss {loss.item():.3f}, mIoU {evaluate(model, val)['miou']:.4f}")
    half = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    save_file(
        {key: value.contiguous().cpu() for key, value in half.items()},
        out / "deeplab.safetensors",
        metadata={"architecture": ARCHITECTURE, "classes": ",".join(CLASSES), "output_stride": "16"},
    )
    # What is reported is what is shipped: the metrics are those of the weights after rounding to fp16.
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in half.items()})
    metrics = evaluate(model, val) | {
        "epochs": epochs,
        "batch_size": batch_size,
        "crop": crop,
        "learning_rate": learning_rate,
        "seed": seed,
        "torch": torch.__version__,
        "device": str(device),
        "minutes": round((time.perf_counter() - started) / 60, 1),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    _print_metrics(metrics)


def _print_metrics(metrics: dict[str, object]) -> None:
    table = Table("class", "IoU", title=f"CamVid val, mIoU {metrics['miou']:.4f}")
    for name, value in metrics["iou"].items():
        table.add_row(name, f"{value:.4f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(train)
