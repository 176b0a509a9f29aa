"""Alpha of drawn cut-outs, made smaller and larger again: bicubic, the network everywhere, and what nlrn does.

    python -m benchmarks.alpha --out results

Edges are drawn eight times larger and averaged; a binary mask has no value between 0 and 255. Results are rounded to 8
bit. `beyond` is how far a result leaves 0..255 before it is clipped, in grey levels; `constant` by how much it misses
the value of an area that was constant over 5 x 5 pixels.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from torch import Tensor

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.inference import restore
from nlrn.ops.resize import bicubic_resize

from .common import show, tell, write

SIDE, FINE = 144, 8
SCALES = (2, 3, 4)

Draw = Callable[[ImageDraw.ImageDraw, np.random.Generator], None]


def discs(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    """Nine discs."""
    for _ in range(9):
        x, y, radius = (*random.uniform(0, SIDE * FINE, 2), random.uniform(4, 22) * FINE)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)


def polygons(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    """Six polygons of three to six corners."""
    for _ in range(6):
        center, radius = random.uniform(20, 124, 2) * FINE, random.uniform(8, 30) * FINE
        angles = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 7)))
        corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
        draw.polygon([(float(x), float(y)) for x, y in corners], fill=255)


def text(size: int, lines: tuple[str, ...]) -> Draw:
    """Lines of text, letters of so many pixels."""

    def draw_text(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
        font = ImageFont.load_default(size=size * FINE)
        for index, line in enumerate(lines):
            draw.text((4 * FINE, (3 + 1.4 * size * index) * FINE), line, font=font, fill=255)

    return draw_text


def hair(draw: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    """A head with seventy strokes of half a pixel to one and a half."""
    draw.ellipse([length * FINE for length in (40, 60, 104, 140)], fill=255)
    for _ in range(70):
        angle = random.uniform(0, 2 * np.pi)
        x, y = 72 + 25 * np.cos(angle), 90 + 25 * np.sin(angle)
        points = []
        for _ in range(20):
            points.append((x * FINE, y * FINE))
            angle += random.normal(0, 0.15)
            x, y = x + 3.5 * np.cos(angle), y + 3.5 * np.sin(angle)
        draw.line(points, fill=255, width=int(random.choice([FINE // 2, FINE, FINE * 3 // 2])))


def masks() -> dict[str, np.ndarray]:
    """All masks, in units of [0, 1]."""
    found = dict[str, np.ndarray]()
    drawn: dict[str, Draw] = {
        "discs": discs,
        "polygons": polygons,
        "large text": text(22, ("Rgba", "cut-out", "&8%Qy", "alpha")),
        "small text": text(11, ("The quick brown fox",) * 9),
        "hair": hair,
    }
    for index, (name, draw) in enumerate(drawn.items()):
        image = Image.new("L", (SIDE * FINE, SIDE * FINE))
        draw(ImageDraw.Draw(image), np.random.default_rng(index))
        found[name] = np.asarray(image, np.float64).reshape(SIDE, FINE, SIDE, FINE).mean((1, 3)) / 255
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    return found | {
        "binary discs": (found["discs"] > 0.5).astype(np.float64),
        "binary hair": (found["hair"] > 0.5).astype(np.float64),
        "feathered polygons": gaussian_filter(found["polygons"], 3),
        "soft disc": np.clip((0.45 - np.hypot(y - 0.5, x - 0.5)) / 0.25, 0, 1),
        "gradient": np.clip(1.4 * x - 0.2, 0, 1),
    }


def rounded(alpha: Tensor) -> Tensor:
    """In 8-bit steps."""
    return (alpha.clamp(0, 1) * 255).round() / 255


def measured(mask: np.ndarray, scale: int, model: nlrn.NLRN) -> dict[str, object]:
    """The figures of a mask."""
    whole = rounded(torch.from_numpy(mask).float()[None, None])
    small = rounded(bicubic_resize(whole, SIDE // scale, SIDE // scale))
    bicubic = bicubic_resize(small, SIDE, SIDE)
    both = torch.cat([torch.full_like(small, 0.5), small], 1)
    ways = {
        "bicubic": bicubic,
        "network": restore(model, bicubic),
        "nlrn": nlrn.upscale((both * 255).round().byte(), scale)[:, 1:] / 255,
    }
    constant = F.max_pool2d(small, 5, 1, 2) == -F.max_pool2d(-small, 5, 1, 2)
    inside = F.interpolate(constant.float(), scale_factor=scale) > 0
    row: dict[str, object] = {}
    for name, result in ways.items():
        off = (rounded(result) - F.interpolate(small, scale_factor=scale)).abs()[inside]
        row[f"{name}"] = f"{psnr(rounded(result)[0, 0].numpy(), whole[0, 0].numpy(), 1.0):.2f}"
        row[f"{name}, constant"] = f"{255 * float(off.max() if off.numel() else 0):.0f}"
        if name != "nlrn":
            row[f"{name}, beyond"] = f"{255 * float(torch.maximum(result - 1, -result).max()):.0f}"
    return row


def main() -> None:
    """Prints the table, and appends it to `alpha.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for alpha.jsonl")
    options = parser.parse_args()
    model, rows = nlrn.load_model("nlrn-small-upscale"), list[dict[str, object]]()
    assert isinstance(model, nlrn.NLRN)
    for name, mask in masks().items():
        for scale in SCALES:
            rows.append({"mask": name, "scale": scale, **measured(mask, scale, model)})
            tell(str(rows[-1]))
    if options.out:
        write(options.out / "alpha.jsonl", rows, torch.device("cpu"), f"{SIDE}x{SIDE}")
    show(f"PSNR in dB, {SIDE}x{SIDE}", rows)


if __name__ == "__main__":
    main()
