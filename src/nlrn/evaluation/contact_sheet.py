"""Pictures in labelled rows: what a benchmark did best and worst, and the demo's comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, BAND = 8, 24


def contact_sheet(rows: Sequence[Sequence[tuple[str, np.ndarray]]]) -> np.ndarray:
    """One picture of all: each a label over a uint8 image, in rows.

    Args:
        rows: `(label, H x W or H x W x 3)` by row; sizes may differ.

    Returns:
        uint8 `H x W x 3`.
    """
    widths = [sum(image.shape[1] + GAP for _, image in row) - GAP for row in rows]
    heights = [BAND + max(image.shape[0] for _, image in row) for row in rows]
    sheet = Image.new("RGB", (max(widths), sum(heights) + GAP * (len(rows) - 1)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for label, image in row:
            draw.text((x + 2, y + 4), label, fill="black", font=font)
            sheet.paste(Image.fromarray(image).convert("RGB"), (x, y + BAND))
            x += image.shape[1] + GAP
        y += height + GAP
    return np.asarray(sheet)
