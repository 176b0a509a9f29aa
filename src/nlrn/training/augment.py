"""Crops that natural images have too few of: smooth areas, every colour, old prints, drawings and text.

Everything is drawn on the device by a generator, and nothing waits for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..degradations.tables import constant

SHAPES = 6
SHAPES_ON_GRATINGS = 1
LUMA = (0.299, 0.587, 0.114)
SEPIA = (1.0, 0.85, 0.65)


def faded(clean: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Crops `[B, C, P, P]` of which a share has at most a fifth of its contrast, around any colour."""
    chosen, contrast = _uniform(clean, generator) < share, 0.2 * _uniform(clean, generator).square()
    level = _uniform(clean, generator, clean.shape[1])
    flat = level + contrast * (clean - clean.mean((1, 2, 3), keepdim=True))
    return torch.where(chosen, flat.clamp(0, 1), clean)


def recolored(clean: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """RGB crops of which half a share has its channels in another order, and half has another hue."""
    count = clean.shape[0]
    chosen = _uniform(clean, generator)
    order = torch.rand((count, 3), generator=generator, device=clean.device).argsort(1)
    shuffled = clean.gather(1, order[:, :, None, None].expand_as(clean))
    # A rotation about the grey axis (Rodrigues).
    angle = 2 * math.pi * _uniform(clean, generator)[:, :, 0]
    third, cross = clean.new_full((3, 3), 1 / 3), clean.new_zeros(3, 3)
    for i in range(3):
        cross[i, i - 1], cross[i - 1, i] = 3**-0.5, -(3**-0.5)
    turn = angle.cos() * (torch.eye(3, device=clean.device) - third) + third + angle.sin() * cross
    turned = torch.einsum("bij,bjyx->biyx", turn, clean).clamp(0, 1)
    return torch.where(chosen < share / 2, shuffled, torch.where(chosen < share, turned, clean))


def toned(clean: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """RGB crops of which half a share is grey and half has one tint, as old prints have: sepia, or any other, faint."""
    chosen = _uniform(clean, generator)
    weights, warm = (constant(values, clean.device).view(1, 3, 1, 1) for values in (LUMA, SEPIA))
    gray = (clean * weights).sum(1, keepdim=True).expand_as(clean)
    tint = torch.where(_uniform(clean, generator) < 0.5, warm, 1 - 0.3 * _uniform(clean, generator, 3))
    # Paper and ink: the tint colours white most and leaves black.
    paper = 0.75 + 0.25 * _uniform(clean, generator)
    ink = 0.2 * _uniform(clean, generator).square()
    tinted = ink + (paper * tint - ink) * gray
    return torch.where(chosen < share / 2, gray, torch.where(chosen < share, tinted, clean)).clamp(0, 1)


def drawn(clean: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Crops of which a share is replaced by drawings: gradients, gratings, shapes and text in any colours."""
    pictures = drawings(clean, generator)
    return torch.where(_uniform(clean, generator) < share, pictures, clean)


def drawings(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random drawings `[B, C, P, P]` in [0, 1], as many and as large as `like`."""
    size, device = like.shape[2], like.device
    along = (torch.arange(size, device=device) + 0.5) / size * 2 - 1
    y, x = along[:, None].expand(size, size), along.expand(size, size)
    first, second = _color(like, generator), _color(like, generator)
    angle = 2 * math.pi * _uniform(like, generator)
    ramp = 0.5 + 0.5 * (angle.cos() * x + angle.sin() * y)
    # A third are gratings, a third gradients, and a third one colour.
    kind = _uniform(like, generator)
    ramp = torch.where(kind < 1 / 3, _grating(like, x, y, generator), torch.where(kind < 2 / 3, ramp, 0))
    canvas = first + ramp * (second - first)
    for number in range(SHAPES):
        mask = _shape(like, x, y, generator)
        if number >= SHAPES_ON_GRATINGS:
            mask = torch.where(kind < 1 / 3, 0, mask)
        canvas = canvas + mask * (_color(like, generator) - canvas)
    return canvas.clamp(0, 1)


def _shape(like: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """The opacity of a drawing, `[B, 1, P, P]` from 0 to 1: an ellipse or a rectangle, or stripes or text in it."""
    size = like.shape[2]
    angle = torch.where(_uniform(like, generator) < 0.5, 0.0, math.pi * _uniform(like, generator))
    dx, dy = x - (2.4 * _uniform(like, generator) - 1.2), y - (2.4 * _uniform(like, generator) - 1.2)
    u, v = angle.cos() * dx + angle.sin() * dy, angle.cos() * dy - angle.sin() * dx
    wide, high = (0.02 * 60 ** _uniform(like, generator) for _ in range(2))
    straight = torch.maximum(u.abs() / wide, v.abs() / high)
    ellipse = ((u / wide).square() + (v / high).square()).sqrt()
    kind = _uniform(like, generator)
    distance = torch.where(kind < 0.25, ellipse, straight)
    # The edge is a pixel wide.
    inside = (0.5 + (1 - distance) * torch.minimum(wide, high) * size / 2).clamp(0, 1)
    lines = _grating(like, x, y, generator)
    return inside * torch.where(kind < 0.6, 1.0, torch.where(kind < 0.8, lines, _text(like, generator)))


def _grating(like: Tensor, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Equal lines side by side, `[B, 1, P, P]` from 0 to 1: straight at any angle, concentric, or crossed."""
    size = like.shape[2]
    angle = math.pi * _uniform(like, generator)
    # In pixels: the lines are 2 to 24 apart, and 0.7 or more wide.
    period = 2 * 12 ** _uniform(like, generator)
    width = (period * (0.1 + 0.8 * _uniform(like, generator))).clamp(min=0.7)
    phase = period * _uniform(like, generator)

    def lines(distance: Tensor) -> Tensor:
        off = (((distance + phase) / period) % 1 - 0.5).abs() * period
        return (0.5 + width / 2 - off).clamp(0, 1)

    straight = (angle.cos() * x + angle.sin() * y) * size / 2
    across = (angle.cos() * y - angle.sin() * x) * size / 2
    # The centre of concentric lines lies half a crop to three crops away.
    radius = size * (0.5 + 2.5 * _uniform(like, generator).square())
    bent = ((straight - radius).square() + across.square()).sqrt()
    kind = _uniform(like, generator)
    first = torch.where(kind < 0.7, lines(straight), lines(bent))
    return torch.where(kind < 0.85, first, torch.maximum(lines(straight), lines(across)))


def _text(like: Tensor, generator: torch.Generator) -> Tensor:
    """Lines of random letters of 5 x 7 cells, `[B, 1, P, P]` of 0 and 1; a cell is one to three pixels."""
    count, _, size, _ = like.shape
    cell = (1 + 3 * _uniform(like, generator)).floor().long().clamp(max=3)[:, 0, 0]  # [B, 1]
    index = torch.arange(size, device=like.device) // cell  # [B, P]
    cells = torch.rand((count, size, size), generator=generator, device=like.device) < 0.5
    rows = cells.gather(1, index[:, :, None].expand(-1, -1, size))
    bits = rows.gather(2, index[:, None, :].expand(-1, size, -1))
    written = (index % 10 < 7)[:, :, None] & (index % 6 < 5)[:, None, :]
    return (bits & written)[:, None].to(like.dtype)


def _color(like: Tensor, generator: torch.Generator) -> Tensor:
    """`[B, C, 1, 1]`: any colour, or every second time one whose channels are black or white."""
    channels = like.shape[1]
    color = _uniform(like, generator, channels)
    return torch.where(_uniform(like, generator) < 0.5, color.round(), color)


def _uniform(like: Tensor, generator: torch.Generator, channels: int = 1) -> Tensor:
    """Numbers in [0, 1), `[B, channels, 1, 1]`."""
    return torch.rand((like.shape[0], channels, 1, 1), generator=generator, device=like.device)
