"""Reference architectures with random weights that behave: activations neither vanish nor explode."""

from __future__ import annotations

import torch
from torch import nn

from atrous.exporter.models import create_model


def settled(name: str, *, classes: int) -> nn.Module:
    """A reference network in eval mode, its batch normalization set to the statistics of one random batch.

    Without that an untrained network fades to its bias, and any export of it is "equal".
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, num_classes=classes)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        with torch.no_grad():
            model.train()(torch.randn(2, 3, 97, 97))
    return model.eval()


def logits_stride(name: str, output_stride: int) -> int:
    """Pixels of the image per logit: the decoder of DeepLabv3+ ends at stride 4, others at the backbone's."""
    return 4 if "v3plus" in name else output_stride
