"""Building blocks shared by the DeepLab reference models."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

#: Builds an activation module; `nn.ReLU` for the classic nets, `nn.ReLU6` for the quantization-friendly ones.
Activation = Callable[[], nn.Module]


class ConvBNAct(nn.Sequential):
    """Convolution without bias, batch normalization, activation: [N, in, h, w] → [N, out, h/stride, w/stride].

    The padding keeps the size at stride 1 for every odd kernel and every rate.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        rate: int = 1,
        groups: int = 1,
        activation: Activation | None = nn.ReLU,
        bn_eps: float = 1e-5,
    ) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=rate * (kernel_size - 1) // 2,
                dilation=rate,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels, eps=bn_eps),
        ]
        if activation is not None:
            layers.append(activation())
        super().__init__(*layers)

    def unpad(self) -> None:
        """Take the convolution's padding away, where a network has none or pads elsewhere."""
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                layer.padding = (0, 0)


class SamePadded(nn.Sequential):
    """A 3×3 `ConvBNAct` of stride 2, padded as TensorFlow's SAME: an even length at its end, an odd one at both."""

    def __init__(self, layer: ConvBNAct) -> None:
        layer.unpad()
        super().__init__(*layer)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, h, w] → [N, out, h/2, w/2]."""
        height, width = x.shape[2:]
        y = functional.pad(x, (1, 1, 1, 1))[:, :, 1 - height % 2 :, 1 - width % 2 :]
        for layer in self:
            y = layer(y)
        return y


class SeparableConv(nn.Sequential):
    """Atrous separable convolution (DeepLabv3+, arXiv 1802.02611 §3.1): depthwise at `rate`, then pointwise.

    Args:
        inner_norm: normalize and activate between the halves too, so that each quantizes on its own scale;
            segmentation-models-pytorch does not.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        rate: int = 1,
        activation: Activation = nn.ReLU,
        inner_norm: bool = True,
    ) -> None:
        depthwise = ConvBNAct(
            in_channels, in_channels, kernel_size, rate=rate, groups=in_channels, activation=activation
        )
        super().__init__(
            depthwise if inner_norm else depthwise[0],
            ConvBNAct(in_channels, out_channels, activation=activation),
        )


class ImagePooling(nn.Sequential):
    """Image-level feature (DeepLabv3, arXiv 1706.05587 §3.3): global average → 1×1 convolution, broadcast back."""

    def __init__(self, in_channels: int, out_channels: int, *, activation: Activation = nn.ReLU) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), ConvBNAct(in_channels, out_channels, activation=activation))

    def forward(self, features: Tensor) -> Tensor:
        """[N, in, h, w] → [N, out, h, w], constant over h and w."""
        pooled = features
        for layer in self:
            pooled = layer(pooled)
        # A 1×1 map resized by any rule is a constant, so expanding says the same without a Resize op.
        return pooled.expand(-1, -1, features.shape[2], features.shape[3])


def resize_to(x: Tensor, like: Tensor, *, align_corners: bool = False) -> Tensor:
    """Bilinear interpolation of `x` [N, C, h, w] to the height and width of `like` [N, ·, H, W]."""
    return functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=align_corners)
