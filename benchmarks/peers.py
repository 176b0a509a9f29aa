"""The architectures of other denoisers, grey, with random weights: what they cost, not what they restore.

Each is built from its paper: layers, channels and the order of operations. Batch norms, which fold into convolutions
for inference, are left out. `PEERS` names the published parameters, against which a test counts these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dncnn() -> nn.Module:
    """DnCNN (Zhang et al., IEEE TIP 2017): 17 convolutions of 64 channels."""
    layers: list[nn.Module] = [nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(inplace=True)]
    for _ in range(15):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(64, 1, 3, padding=1))


def ffdnet() -> nn.Module:
    """FFDNet (Zhang et al., IEEE TIP 2018): 15 convolutions of 64 channels on 2x2 pixels and the noise level."""
    layers: list[nn.Module] = [
        nn.PixelUnshuffle(2),
        _Level(),
        nn.Conv2d(5, 64, 3, padding=1),
        nn.ReLU(inplace=True),
    ]
    for _ in range(13):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(64, 4, 3, padding=1), nn.PixelShuffle(2))


def drunet() -> nn.Module:
    """DRUNet (Zhang et al., IEEE TPAMI 2022): a U-Net of four scales with four residual blocks at each."""
    widths = (64, 128, 256, 512)

    def blocks(width: int) -> nn.Sequential:
        return nn.Sequential(*(_Residual(width) for _ in range(4)))

    inner: nn.Module = blocks(widths[-1])
    for width, below in reversed(list(pairwise(widths))):
        down = nn.Conv2d(width, below, 2, stride=2, bias=False)
        up = nn.ConvTranspose2d(below, width, 2, stride=2, bias=False)
        inner = nn.Sequential(blocks(width), _Skip(nn.Sequential(down, inner, up)), blocks(width))
    head, tail = nn.Conv2d(2, 64, 3, padding=1, bias=False), nn.Conv2d(64, 1, 3, padding=1, bias=False)
    # The paper's outermost scale adds its input to what comes from below, as every other does.
    return nn.Sequential(_Level(), head, inner, tail)


def swinir() -> nn.Module:
    """SwinIR (Liang et al., ICCVW 2021): six groups of six Swin transformer layers, 180 channels, windows of 8x8."""
    groups = (
        _Skip(
            nn.Sequential(
                *(_Swin(180, 6, 8, 4 * (i % 2)) for i in range(6)), nn.Conv2d(180, 180, 3, padding=1)
            )
        )
        for _ in range(6)
    )
    body = nn.Sequential(*groups, nn.Conv2d(180, 180, 3, padding=1))
    return nn.Sequential(nn.Conv2d(1, 180, 3, padding=1), _Skip(body), nn.Conv2d(180, 1, 3, padding=1))


class _Level(nn.Module):
    """A channel of the noise level beside the image's."""

    def forward(self, image: Tensor) -> Tensor:
        return F.pad(image, (0, 0, 0, 0, 0, 1), value=0.1)


class _Skip(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(F.relu(self.a(x)))


class _Swin(nn.Module):
    """A layer of windowed self-attention with position biases, and a perceptron, on `[B, C, H, W]`."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm_a, self.norm_b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.projections, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.biases = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        place = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        ).flatten(1)
        offset = place[:, :, None] - place[:, None, :] + window - 1
        self.register_buffer("index", offset[0] * (2 * window - 1) + offset[1])

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = x + self._attention(self.norm_a(x))
        x = x + self.perceptron(self.norm_b(x))
        return x.permute(0, 3, 1, 2)

    def _attention(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        q, n = self.window, self.window**2
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        tiles = (
            x.view(batch, height // q, q, width // q, q, channels).transpose(2, 3).reshape(-1, n, channels)
        )
        query, key, value = (
            self.projections(tiles).view(-1, n, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        )
        bias = self.biases[self.index].permute(2, 0, 1)
        tiles = (
            F.scaled_dot_product_attention(query, key, value, bias[None])
            .transpose(1, 2)
            .reshape(-1, n, channels)
        )
        tiles = self.output(tiles)
        x = (
            tiles.view(batch, height // q, width // q, q, q, channels)
            .transpose(2, 3)
            .reshape(batch, height, width, channels)
        )
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


@dataclass(frozen=True)
class Peer:
    """A denoiser of the literature.

    Args:
        build: makes its network.
        parameters: in millions, as published.
        psnr: on BSD68 at sigma 25 in dB, as published.
    """

    build: Callable[[], nn.Module]
    parameters: float
    psnr: float


PEERS = {
    "DnCNN": Peer(dncnn, 0.56, 29.23),
    "FFDNet": Peer(ffdnet, 0.49, 29.19),
    "DRUNet": Peer(drunet, 32.64, 29.48),
    "SwinIR": Peer(swinir, 11.5, 29.50),
}
