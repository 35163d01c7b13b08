"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from offprint.models.randomness import seeded


class _Block(nn.Module):
    """A residual branch beside a shortcut: the identity where shapes agree, else a 1×1 convolution."""

    expansion: ClassVar[int]

    def __init__(self, fan_in: int, width: int, stride: int) -> None:
        super().__init__()
        fan_out = width * self.expansion
        self.branch = nn.Sequential(*self._layers(fan_in, width, stride))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or fan_in != fan_out:
            self.shortcut = nn.Sequential(_convolution(fan_in, fan_out, 1, stride), nn.BatchNorm2d(fan_out))
        self.activation = nn.ReLU()

    def _layers(self, fan_in: int, width: int, stride: int) -> list[nn.Module]:
        raise NotImplementedError

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out h w"]:
        outputs: Tensor = self.activation(self.branch(inputs) + self.shortcut(inputs))
        return outputs


class BasicBlock(_Block):
    """Two 3×3 convolutions beside a shortcut.

    Parameters
    ----------
    fan_in, width : int
        Input and output channels.
    stride : int
        Of the first convolution.

    Raises
    ------
    ValueError
        If a size is below 1.

    Examples
    --------
    >>> BasicBlock(4, 8, 2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 8, 3, 3])
    """

    expansion = 1

    def _layers(self, fan_in: int, width: int, stride: int) -> list[nn.Module]:
        return [
            *(_convolution(fan_in, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
            *(_convolution(width, width, 3, 1), nn.BatchNorm2d(width)),
        ]


class Bottleneck(_Block):
    """A 1×1, a 3×3 and a 1×1 convolution, the last to four times the width, beside a shortcut.

    Parameters
    ----------
    fan_in, width : int
        Input channels, and channels of the inner convolutions.
    stride : int
        Of the 3×3 convolution.

    Raises
    ------
    ValueError
        If a size is below 1.

    Examples
    --------
    >>> Bottleneck(4, 8, 2)(torch.zeros(1, 4, 6, 6)).shape
    torch.Size([1, 32, 3, 3])
    """

    expansion = 4

    def _layers(self, fan_in: int, width: int, stride: int) -> list[nn.Module]:
        fan_out = width * self.expansion
        return [
            *(_convolution(fan_in, width, 1, 1), nn.BatchNorm2d(width), nn.ReLU()),
            *(_convolution(width, width, 3, stride), nn.BatchNorm2d(width), nn.ReLU()),
            *(_convolution(width, fan_out, 1, 1), nn.BatchNorm2d(fan_out)),
        ]


class ResNet(nn.Module):
    """A residual network with a 3×3 stem, for images from 8×8 to a few hundred pixels.

    Each stage after the first halves the image; an average over the image and a linear head follow. ``model(x)`` is
    ``model.head(model.features(x))``.

    Parameters
    ----------
    in_channels : int
        Channels of the images, at least 1.
    out_features : int
        Length of the output, at least 1.
    widths : sequence of int
        Channels of each stage, at least 1 each.
    n_blocks : sequence of int
        Blocks of each stage, at least 1 each.
    block : {"basic", "bottleneck"}
        :class:`BasicBlock` or :class:`Bottleneck`, which has four times as many output channels.
    zero_residual : bool
        Start with every residual branch at zero, so that each block passes its shortcut on.
    generator : torch.Generator or int, optional
        Source (or seed) of the initial weights; by default torch's global state.

    Raises
    ------
    ValueError
        If a size is below 1, the stages' lists differ in length, or block is unknown.

    Notes
    -----
    The defaults are the 20-layer network for CIFAR. ``widths=(64, 128, 256, 512)`` with ``n_blocks=(2, 2, 2, 2)`` is an
    18-layer one (11,173,962 parameters for 10 classes); with ``n_blocks=(3, 4, 6, 3)`` and ``block="bottleneck"``,
    50 layers (23,520,842). Convolutions start from a normal distribution with variance 2 / fan out.

    Examples
    --------
    >>> model = ResNet(1, 10, widths=(8, 16), n_blocks=(1, 1), generator=0)
    >>> model(torch.zeros(5, 1, 8, 8)).shape, model.features(torch.zeros(5, 1, 8, 8)).shape
    (torch.Size([5, 10]), torch.Size([5, 16]))

    References
    ----------
    He, Zhang, Ren and Sun, *Deep Residual Learning for Image Recognition*, arXiv:1512.03385, sections 3 and 4.2.
    Goyal et al., *Accurate, Large Minibatch SGD*, arXiv:1706.02677, section 5.1, for starting branches at zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        widths: Sequence[int] = (16, 32, 64),
        n_blocks: Sequence[int] = (3, 3, 3),
        block: Literal["basic", "bottleneck"] = "basic",
        zero_residual: bool = False,
        generator: torch.Generator | int | None = None,
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(n_blocks):
            raise ValueError(
                f"widths and n_blocks must have one entry per stage; got {list(widths)} and {list(n_blocks)}"
            )
        if min(in_channels, out_features, *widths, *n_blocks) < 1:
            raise ValueError(
                "in_channels, out_features, widths and n_blocks must be at least 1; "
                f"got {in_channels}, {out_features}, {list(widths)} and {list(n_blocks)}"
            )
        kinds: dict[str, type[_Block]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
        if block not in kinds:
            raise ValueError(f"block must be 'basic' or 'bottleneck'; got {block!r}")
        with seeded(generator):
            channels = widths[0]
            layers: list[nn.Module] = [_convolution(in_channels, channels, 3, 1), nn.BatchNorm2d(channels), nn.ReLU()]
            for stage, (width, count) in enumerate(zip(widths, n_blocks, strict=True)):
                for index in range(count):
                    layers.append(kinds[block](channels, width, 2 if stage > 0 and index == 0 else 1))
                    channels = width * kinds[block].expansion
            self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
            self.head = nn.Linear(channels, out_features)
        if zero_residual:
            for module in self.features:
                if isinstance(module, _Block):
                    nn.init.zeros_(module.branch[-1].weight)  # type: ignore[arg-type]

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out"]:
        """Return the outputs, of shape (batch, out_features)."""
        outputs: Tensor = self.head(self.features(inputs))
        return outputs


def _convolution(fan_in: int, fan_out: int, kernel_size: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(fan_in, fan_out, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
