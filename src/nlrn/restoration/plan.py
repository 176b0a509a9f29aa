"""The steps that an old picture needs, and their order.

    nothing measured    it stays as it was
    JPEG alone          dejpeg
    noise alone         denoise
    both                denoise, then dejpeg; after strong compression, which has taken most of the noise, dejpeg first
    at last             upscale, where a size is asked for

A denoiser loses fine texture of a picture without noise. So the one for photographs is tried on a few crops, and noise
is what it takes from nearly every block of them: from a clean picture it takes texture, of which most have smooth parts
without any. The constants are from crops of BSD400; `benchmarks/restore_orders.py` shows what they lead to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..inference.blocking import Blocking, find_blocks, luma_levels
from ..inference.noise_level import SMALLEST_SIDE, WHITE_COLOR, NoiseEstimate
from .choice import is_photo, noise_of
from .purpose import HANDLINGS, Handling

Step = Literal["dejpeg", "white", "photo", "upscale"]
Compression = Literal["mild", "medium", "strong"]

# Smaller pictures, of which a fifth would count as noisy or compressed and is not, are not measured.
MEASURED_SIDE = 48
# Seams stand out by so many standard errors, and are so high in 8-bit grey levels, where dejpeg helps.
CERTAIN, HIGH = 4.0, 0.7
# At higher qualities of a JPEG file dejpeg takes more than it gives.
BEST_QUALITY = 95
# Compression that leaves so little noise that dejpeg comes first, and one that leaves most of the noise: a quality, or
# a height of seams without one.
STRONG_QUALITY, STRONG_SEAMS = 15, 6.5
MILD_QUALITY, MILD_SEAMS = 80, 1.5
# Luma that the denoiser takes from a block of a noisy picture, in 8-bit grey levels, by how strong the compression is,
# which smooths noise, and after strong compression hardly ever does harm; and the colour difference that it takes
# without compression.
NOISY_LUMA: dict[Compression | None, float] = {None: 2.6, "mild": 2.6, "medium": 1.8, "strong": 0.5}
NOISY_COLOR = 2.2
# Crops on which the denoiser is tried: their side, and their places among all by how much is in them, of which a flat
# sky and dense leaves tell little.
SIDE, PLACES = 96, (0.15, 0.35, 0.55, 0.75)
# Sides of blocks, and the share of them that may have less removed than a noisy picture has.
BLOCK, QUIET = 8, 0.1

# Restores `[B, C, H, W]` by the model for photographs.
Denoiser = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plan:
    """The steps for a picture, and a sentence for the user on each of them or on what speaks against it."""

    steps: tuple[Step, ...]
    reasons: tuple[str, ...]


def plan_for(
    image: Tensor,
    hidden: Tensor | None,
    quality: int | None,
    denoiser: Denoiser,
    enlarged: bool,
    handling: Handling = HANDLINGS[None],
) -> Plan:
    """The steps that a picture needs.

    Args:
        image: `[1, C, H, W]` in units of [0, 1], C = 1 or 3.
        hidden: `[1, 1, H, W]`, the pixels that are not part of it.
        quality: of the JPEG file that it comes from.
        denoiser: the one for photographs.
        enlarged: whether it is to be enlarged.
        handling: of its kind.
    """
    measured = min(image.shape[2:]) >= MEASURED_SIDE
    compression, reason = None, None
    if handling.dejpeg:
        compression, reason = _compression(find_blocks(image) if measured else None, quality)
    reasons = [said for said in (handling.note, reason) if said]
    steps: list[Step] = ["dejpeg"] if compression else []
    estimate = None
    denoise: Step | None = None
    if handling.photo and handling.noisy:
        denoise = "photo"
    elif handling.noisy:
        denoise = "white" if min(image.shape[2:]) >= SMALLEST_SIDE else None
    else:
        estimate = noise_of(image, hidden, drawings=handling.drawings) if measured else None
        denoise, said = _denoise(image, hidden, estimate, denoiser, compression, handling)
        reasons += said
    if denoise:
        steps.insert(len(steps) if compression == "strong" else 0, denoise)
    if not steps:
        reasons.append(_nothing(estimate, handling))
    if enlarged:
        steps.append("upscale")
    return Plan(tuple(steps), tuple(reasons))


def _denoise(
    image: Tensor,
    hidden: Tensor | None,
    estimate: NoiseEstimate | None,
    denoiser: Denoiser,
    compression: Compression | None,
    handling: Handling,
) -> tuple[Step | None, list[str]]:
    """The step that removes the noise of a picture, `None` where it has none, and the reason."""
    removed = None if estimate is None or estimate.drawing else _removed(image, hidden, denoiser)
    if estimate is None or removed is None or not _is_noisy(*removed, compression):
        return None, []
    white = not compression and _is_white(image.shape[1], estimate, removed[1])
    kind = "white noise" if white else "noise or grain that is not white"
    place = {None: "", "strong": " after it"}.get(compression, " before it")
    said = f"{kind}, {max(removed):.2g} grey levels in smooth parts: denoise{place}"
    photo = not white if handling.photo is None else handling.photo
    return "photo" if photo else "white", [said]


def _is_noisy(luma: float, color: float, compression: Compression | None) -> bool:
    whole = compression in (None, "mild")
    return luma >= NOISY_LUMA[compression] or (whole and color >= NOISY_COLOR)


def _nothing(estimate: NoiseEstimate | None, handling: Handling) -> str:
    if handling.noisy:
        return f"with less than {SMALLEST_SIDE} pixels a side noise cannot be estimated, and none is removed; denoise takes its level as sigma"
    if estimate is None:
        return f"with less than {MEASURED_SIDE} pixels a side noise and compression cannot be told from the picture; denoise and dejpeg do not ask"
    return "no noise and no compression found that a restoration would improve: neither is removed; nlrn denoise and nlrn dejpeg do it anyway"


def _compression(blocks: Blocking | None, quality: int | None) -> tuple[Compression | None, str | None]:
    """The strength of a compression, `None` where dejpeg does not help; and a reason."""
    if quality is not None and quality > BEST_QUALITY:
        return None, f"a JPEG file of quality {quality}: dejpeg would take more than it gives"
    if quality is not None:
        strong, mild = quality <= STRONG_QUALITY, quality >= MILD_QUALITY
        reason = f"a JPEG file of quality {quality}: dejpeg"
    elif blocks is None or blocks.certainty < CERTAIN or blocks.height < HIGH:
        return None, None
    else:
        strong, mild = blocks.height >= STRONG_SEAMS, blocks.height < MILD_SEAMS
        reason = f"blocks of JPEG compression, seams of {blocks.height:.2g} grey levels: dejpeg"
    return "strong" if strong else "mild" if mild else "medium", reason


def _is_white(channels: int, estimate: NoiseEstimate, color: float) -> bool:
    """True for white noise; that of a colour picture is in the difference of its channels too."""
    if channels == 1:
        return not is_photo(1, estimate)
    return color >= NOISY_COLOR and (estimate.color_whiteness or 0.0) >= WHITE_COLOR


def _mask(image: Tensor, hidden: Tensor | None) -> Tensor:
    return torch.zeros(image.shape[2:], dtype=torch.bool) if hidden is None else hidden[0, 0]


def _removed(image: Tensor, hidden: Tensor | None, denoiser: Denoiser) -> tuple[float, float] | None:
    """Grey levels that the denoiser takes from nearly every block, of luma and of colour; `None` where none varies."""
    places = _crops(image, hidden)
    crops = torch.cat([image[:, :, rows, columns] for rows, columns in places])
    varied = F.max_pool2d(crops, BLOCK).sub(-F.max_pool2d(-crops, BLOCK)).amax(1) > 0
    if hidden is not None:  # hidden pixels are filled, with less noise than the others have
        unseen = torch.cat([hidden[0, :, rows, columns] for rows, columns in places]).to(crops)
        seen = F.max_pool2d(unseen[:, None], BLOCK)[:, 0] == 0
        # Where holes are everywhere, blocks with holes are better than none.
        varied = varied & seen if (varied & seen).any() else varied
    if not varied.any():
        return None
    restored = denoiser(crops)
    luma = _block_rms(luma_levels(restored) - luma_levels(crops))
    color = torch.zeros_like(luma)
    if crops.shape[1] == 3:
        red, green, _ = (255 * (restored - crops)).unbind(1)
        color = _block_rms(red - green)
    quiet = (float(x[varied].quantile(QUIET)) for x in (luma, color))
    return next(quiet), next(quiet)


def _block_rms(change: Tensor) -> Tensor:
    return F.avg_pool2d(change.square()[:, None], BLOCK)[:, 0].sqrt()


def _crops(image: Tensor, hidden: Tensor | None) -> list[tuple[slice, slice]]:
    """Rows and columns of crops, of those without hidden or constant pixels where there are such."""
    height, width = image.shape[2:]
    high, wide = min(SIDE, height), min(SIDE, width)
    if (high, wide) == (height, width):
        return [(slice(None), slice(None))]
    busy = F.pad(image.diff(dim=3).abs().mean(1, keepdim=True), (0, 1))
    amount = F.avg_pool2d(busy, (high, wide))[0, 0]
    constant = F.avg_pool2d((busy == 0).to(image.dtype), (high, wide))[0, 0]
    unseen = F.avg_pool2d(_mask(image, hidden)[None, None].to(image), (high, wide))[0, 0]
    useless = constant.maximum(unseen)
    order = torch.argsort(amount.flatten())
    best = order[useless.flatten()[order] <= max(0.3, float(useless.min()))]
    chosen = dict.fromkeys(int(best[math.floor(place * len(best))]) for place in PLACES)
    return [
        (slice(row * high, row * high + high), slice(column * wide, column * wide + wide))
        for row, column in (divmod(index, amount.shape[1]) for index in chosen)
    ]
