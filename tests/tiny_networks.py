"""Small PyTorch networks: a DeepLab that exports in a second, and ones that must not be exported."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class TinyDeepLab(nn.Module):
    """[N, 3, H, W] → logits [N, classes, h, w] at stride 4: strided layers, two atrous rates, a classifier.

    The same weights every time. Batch normalization has statistics that no batch has, so training mode shows.
    """

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem = nn.Sequential(self._block(3, 16, stride=2), self._block(16, 16, stride=2))
            self.context = nn.ModuleList([self._block(16, 8, rate=rate) for rate in (2, 5)])
            self.classifier = nn.Conv2d(16, classes, 1)

    @staticmethod
    def _block(inputs: int, outputs: int, *, stride: int = 1, rate: int = 1) -> nn.Sequential:
        norm = nn.BatchNorm2d(outputs)
        nn.init.uniform_(norm.running_mean, -0.3, 0.3)
        nn.init.uniform_(norm.running_var, 0.2, 0.6)
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=rate, dilation=rate, bias=False)
        return nn.Sequential(conv, norm, nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        features = self.stem(image)
        return self.classifier(torch.cat([branch(features) for branch in self.context], dim=1))


class OnGrid(nn.Module):
    """Pools that round up, as in VGG-16: logits on the pixels 0, 4, 8 …, one cell more than whole strides."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True) for _ in range(2)), nn.Conv2d(3, 5, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)


class Answering(nn.Module):
    """A network whose answer is not logits [N, C, h, w]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.network = TinyDeepLab()
        self.kind = kind

    def forward(self, image: Tensor) -> object:
        logits = self.network(image)
        return {
            "dict": {"out": logits, "aux": logits},
            "tuple": (logits, logits),
            "three axes": logits[:, 0],
            "float16": logits.half(),
            "labels": logits.argmax(dim=1, keepdim=True),
            "one batch": torch.cat([logits, logits]),
        }[self.kind]


class Unsteady(nn.Module):
    """Dropout that stays on: another answer with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyDeepLab()

    def forward(self, image: Tensor) -> Tensor:
        return functional.dropout(self.network(image), p=0.5, training=True)


class Counting(nn.Module):
    """The scale of its answer grows with every call; a trace sees one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyDeepLab()
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return self.network(image) * self.calls


class BranchingOnPixels(nn.Module):
    """Python that depends on pixel values, which no trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyDeepLab()

    def forward(self, image: Tensor) -> Tensor:
        return self.network(image) if image.mean() > 0 else self.network(-image)


class Turning(nn.Module):
    """A network of stride 8 that sees the negative of inputs of some shapes."""

    def __init__(self, decide: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.decide = decide
        self.conv = nn.Conv2d(3, 3, 8, stride=8)

    def forward(self, image: Tensor) -> Tensor:
        return self.conv(-image if self.decide(image) else image)


class PoolingByKernel(nn.Module):
    """Image pooling with a kernel as large as the map, which a trace makes a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.classifier = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(16, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        features = self.features(image)
        pooled = functional.avg_pool2d(features, features.size()[2:])
        pooled = functional.interpolate(pooled, size=features.shape[2:], mode="bilinear", align_corners=False)
        return self.classifier(torch.cat([features, pooled], dim=1))


class RememberingSize(nn.Module):
    """Makes a map of positions for the first size that it sees, and interpolates it for others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 8, stride=8)
        self.positions: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        logits = self.conv(image)
        if self.positions is None:
            self.positions = torch.linspace(-1, 1, logits.shape[3]).square().expand(1, 1, logits.shape[2], -1)
        return logits + functional.interpolate(self.positions, size=logits.shape[2:], mode="nearest")


class FailingWhenSmall(TinyDeepLab):
    """Raises on images lower than `height`."""

    def __init__(self, height: int) -> None:
        super().__init__()
        self.height = height

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2] < self.height:
            raise ValueError(f"images of {image.shape[2]} px are too small")
        return super().forward(image)


class KeepingItsResult(TinyDeepLab):
    """Keeps what it computed last, which cannot be copied while it has a gradient."""

    @classmethod
    def with_a_result(cls) -> KeepingItsResult:
        network = cls()
        network(torch.zeros(1, 3, 32, 32))
        return network

    def forward(self, image: Tensor) -> Tensor:
        self.last = super().forward(image)
        return self.last


class NormalizingInPlace(nn.Module):
    """Writes to its input, as careless preprocessing inside a network does."""

    def __init__(self) -> None:
        super().__init__()
        self.network = TinyDeepLab()

    def forward(self, image: Tensor) -> Tensor:
        image.mul_(2).sub_(0.25)
        return self.network(image)


class Interrupted(nn.Module):
    """Ctrl-C at the `call`-th call: the first finds the stride, later ones export and verify."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.network = TinyDeepLab()
        self.remaining = call

    def forward(self, image: Tensor) -> Tensor:
        self.remaining -= 1
        if self.remaining == 0:
            raise KeyboardInterrupt
        return self.network(image)
