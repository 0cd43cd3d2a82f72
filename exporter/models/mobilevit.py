"""MobileViT (arXiv 2110.02178), a backbone of inverted residuals and transformers, as Hugging Face has it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from .inverted_residual import Depthwise, InvertedResidual
from .layers import ConvBNAct

_PATCH: Final = 2
_HEADS: Final = 4
_BN_EPS: Final = 1e-5
#: Transformer layers of the last three stages.
_DEPTHS: Final = (2, 4, 3)


@dataclass(frozen=True)
class MobileViTSize:
    """Widths of the network (table 4 of the paper's appendix).

    Attributes:
        channels: of the stem and the five stages.
        hidden: of the transformers in the last three stages.
        expansion: of the inverted residuals.
    """

    channels: tuple[int, int, int, int, int, int]
    hidden: tuple[int, int, int]
    expansion: int


MOBILEVIT_S: Final = MobileViTSize((16, 32, 64, 96, 128, 160), (144, 192, 240), 4)
MOBILEVIT_XS: Final = MobileViTSize((16, 32, 48, 64, 80, 96), (96, 120, 144), 4)
MOBILEVIT_XXS: Final = MobileViTSize((16, 16, 24, 48, 64, 80), (64, 80, 96), 2)


class Attention(nn.Module):
    """Self-attention of tokens [N, P, C], with four heads."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.dense = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, P, C] → [N, P, C]."""
        batch, places, channels = tokens.shape
        query, key, value = (
            layer(tokens).view(batch, places, _HEADS, channels // _HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(channels // _HEADS)
        mixed: Tensor = self.dense((scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, places, channels))
        return mixed


class TransformerLayer(nn.Module):
    """Attention and a perceptron of twice the width, each normalized before and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_before = nn.LayerNorm(channels)
        self.attention = Attention(channels)
        self.norm_after = nn.LayerNorm(channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels))

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, P, C] → [N, P, C]."""
        tokens = self.attention(self.norm_before(tokens)) + tokens
        added: Tensor = self.perceptron(self.norm_after(tokens)) + tokens
        return added


class MobileViTBlock(nn.Module):
    """Transformers over the places that 2×2 patches have in common, between two convolutions (§3.1)."""

    def __init__(
        self, in_channels: int, out_channels: int, *, hidden: int, depth: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        self.entry = _residual(in_channels, out_channels, stride=stride, expansion=expansion)
        self.local = ConvBNAct(out_channels, out_channels, 3, activation=nn.SiLU)
        self.widen = nn.Conv2d(out_channels, hidden, 1, bias=False)
        self.transformer = nn.Sequential(*(TransformerLayer(hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(hidden)
        self.narrow = ConvBNAct(hidden, out_channels, activation=nn.SiLU)
        self.fuse = ConvBNAct(2 * out_channels, out_channels, 3, activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, h, w] → [N, out, h/stride, w/stride]."""
        x = self.entry(x)
        y = self.widen(self.local(x))
        height, width = y.shape[2:]
        rows, columns = (height + _PATCH - 1) // _PATCH, (width + _PATCH - 1) // _PATCH
        # Odd maps are resized, others by this to themselves; without a branch, one graph has all sizes.
        y = functional.interpolate(y, size=(rows * _PATCH, columns * _PATCH), mode="bilinear", align_corners=False)
        y = self._fold(self.norm(self.transformer(self._unfold(y, rows, columns))), rows, columns)
        y = functional.interpolate(y, size=(height, width), mode="bilinear", align_corners=False)
        fused: Tensor = self.fuse(torch.cat((x, self.narrow(y)), dim=1))
        return fused

    @staticmethod
    def _unfold(x: Tensor, rows: int, columns: int) -> Tensor:
        """[N, C, 2·rows, 2·columns] → tokens [N·4, rows·columns, C]: a sequence for each place in a patch."""
        batch, channels = x.shape[:2]
        patches = x.reshape(batch, channels, rows, _PATCH, columns, _PATCH).permute(0, 3, 5, 2, 4, 1)
        return patches.reshape(batch * _PATCH * _PATCH, rows * columns, channels)

    @staticmethod
    def _fold(tokens: Tensor, rows: int, columns: int) -> Tensor:
        """The reverse of `_unfold`."""
        channels = tokens.shape[2]
        patches = tokens.reshape(-1, _PATCH, _PATCH, rows, columns, channels).permute(0, 5, 3, 1, 4, 2)
        return patches.reshape(-1, channels, rows * _PATCH, columns * _PATCH)


class MobileViT(nn.Module):
    """[N, 3, H, W] → (low-level features [N, ·, H/4, W/4], features [N, ·, H/16, W/16]).

    The last stage keeps the resolution of the one before it, with no rates: transformers see the whole map.

    Args:
        size: widths.
    """

    def __init__(self, size: MobileViTSize) -> None:
        super().__init__()
        channels, expansion = size.channels, size.expansion
        self.low_level_channels, self.out_channels = channels[2], channels[5]
        self.stem = ConvBNAct(3, channels[0], 3, stride=2, activation=nn.SiLU)
        self.low_level = nn.Sequential(
            _residual(channels[0], channels[1], stride=1, expansion=expansion),
            _residual(channels[1], channels[2], stride=2, expansion=expansion),
            *(_residual(channels[2], channels[2], stride=1, expansion=expansion) for _ in range(2)),
        )
        self.high_level = nn.Sequential(
            *(
                MobileViTBlock(before, after, hidden=hidden, depth=depth, stride=stride, expansion=expansion)
                for before, after, hidden, depth, stride in zip(
                    channels[2:5], channels[3:6], size.hidden, _DEPTHS, (2, 2, 1), strict=True
                )
            )
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (low-level features, features at output stride 16)."""
        low_level: Tensor = self.low_level(self.stem(image))
        return low_level, self.high_level(low_level)


def _residual(in_channels: int, out_channels: int, *, stride: int, expansion: int) -> InvertedResidual:
    return InvertedResidual(
        in_channels,
        in_channels * expansion,
        out_channels,
        depthwise=Depthwise(3, stride, 1),
        activation=nn.SiLU,
        bn_eps=_BN_EPS,
    )
