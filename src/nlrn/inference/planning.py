"""Which way of restoring an image fits into how much memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..models.nlrn import NLRNConfig
from .rows import room
from .wavefront import BandPlan, history_workspace, stored_logits_bytes

MIB = 1 << 20
# Band heights, fastest first; multiples of the eight rows of a query tile.
HEIGHTS = (256, 128, 96, 64, 48, 32, 24, 16, 8)
# On the CPU, memory for larger blocks of features comes from the system page by page, each time anew, and leaves no
# room in the caches: bands are faster (1200x1200 pixels through the small network: 8.6 instead of 11.1 us a pixel).
CPU_BLOCK = 24 * MIB


@dataclass(frozen=True)
class Plan:
    """One way of restoring an image: in bands, or in overlapping square tiles that are restored in bands.

    Args:
        bands: band height and state scheme.
        transposed: bands run along the width.
        tile: side of a square tile in pixels without its halo; `None` for the whole image.
    """

    bands: BandPlan
    transposed: bool = False
    tile: int | None = None


def plans(
    config: NLRNConfig,
    shape: tuple[int, int, int, int],
    steps: int,
    budget: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Plan]:
    """All plans that fit `budget` bytes, in the order in which to try them: fastest first.

    The whole image at once (a large image on the CPU: in bands); bands with stored logits; bands with logits
    recomputed from the history; square tiles with the exact halo.

    Args:
        config: configuration of the network.
        shape: `[B, C, H, W]` of the image.
        steps: recurrent steps that will be run.
        budget: bytes.
        device: type of the device.
        dtype: dtype of the network's arithmetic.

    Raises:
        MemoryError: nothing fits; names the smallest figure.
    """
    batch, _, *pixels = shape
    height, width = map(config.positions, pixels)
    candidates = [Plan(BandPlan(height, True))]
    if device == "cpu" and batch == 1 and config.window_size is not None:
        row = dtype.itemsize * min(height, width) * _widest(config)
        if row * max(height, width) > CPU_BLOCK:
            heights = [h for h in HEIGHTS if h * row <= CPU_BLOCK] or [HEIGHTS[-1]]
            candidates = [Plan(BandPlan(h, True), width > height) for h in heights]
    if config.window_size is None:
        # Every query sees all keys: those of all steps, values and masks are gathered once.
        keys = 4 * (height * width * (steps * config.embedding + config.width) + height**2 + width**2)
        candidates.append(Plan(BandPlan(height, False, 64 * MIB + keys)))
    else:
        transposed = width > height
        long = max(height, width)
        for workspace, store in ((256 * MIB, True), (64 * MIB, True), (256 * MIB, False), (32 * MIB, False)):
            bands = [BandPlan(h, store, workspace) for h in HEIGHTS if h < long]
            if not store:
                bands.insert(0, BandPlan(long, False, workspace))
            candidates += [Plan(band, transposed) for band in bands]
        halo = config.halo
        assert halo is not None
        for tile in (1024, 512, 256, 128, 64):
            if tile % config.stride == 0 and tile + 2 * halo < min(pixels):
                candidates += [
                    Plan(BandPlan(h, store, 64 * MIB), tile=tile) for store in (True, False) for h in (64, 8)
                ]
    needed = [peak_memory(config, shape, steps, plan, device, dtype) for plan in candidates]
    fitting = [plan for plan, bytes_ in zip(candidates, needed, strict=True) if bytes_ <= budget]
    if not fitting:
        raise MemoryError(
            f"restoring {pixels[1]}x{pixels[0]} pixels takes at least {min(needed) / MIB:.0f} MiB of memory, "
            f"{budget / MIB:.0f} MiB are allowed"
        )
    return fitting


def peak_memory(
    config: NLRNConfig,
    shape: tuple[int, int, int, int],
    steps: int,
    plan: Plan,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> int:
    """An upper estimate in bytes of what a plan allocates, the result included."""
    batch, channels, height, width = shape
    result = 8 * batch * channels * height * width
    if plan.tile is not None:
        assert config.halo is not None
        side = plan.tile + 2 * config.halo
        height, width = min(height, side), min(width, side)
        result += 12 * batch * channels * height * width
    height, width = map(config.positions, (height, width))
    if plan.transposed:
        height, width = width, height
    memory = result + _band_memory(config, batch, height, width, steps, plan.bands, dtype.itemsize)
    if device != "cpu" and config.correlation_propagation and not plan.bands.store_logits:
        memory += history_workspace(config, batch, (height, width), steps, dtype.itemsize)
    return memory


def _full_resolution(config: NLRNConfig) -> int:
    """Numbers of the stem's features in a position of the recurrence."""
    return 0 if config.stem is None else config.stem * config.stride**2


def _widest(config: NLRNConfig) -> int:
    """The most numbers of features in a position of the recurrence at any stage."""
    return max(config.width, _full_resolution(config))


def _band_memory(
    config: NLRNConfig, batch: int, height: int, width: int, steps: int, plan: BandPlan, itemsize: int
) -> int:
    radius = height if config.window_size is None else config.window_size // 2
    band = min(plan.height, height)
    if band < height:
        # Bands end on rows that the window does not know of: a step waits for up to a band more.
        lag = min(height, radius + 2 + band)
        window = min(height, band + 2 * radius)
    else:
        lag, window = 0, height

    def rows(number: float, feature_channels: int) -> int:
        return int(itemsize * batch * width * min(number, height)) * feature_channels

    def buffer(number: float) -> int:
        """Features that wait, with room for more below them; of one band, features as they are."""
        return room(rows(number, config.width)) if lag else rows(height, config.width)

    # In flight, at one stage at a time: input, padded copy, result and the convolution's own workspace.
    memory = plan.workspace + 4 * rows(band + radius if lag else height, _widest(config))
    # The stem's features, from the stem to the tail (twice, while they move).
    memory += (2 if lag else 1) * room(rows((steps + 1) * lag + 2 * band, _full_resolution(config)))
    # s^0, from the first stage to the last.
    memory += rows(steps * lag + 2 * band, config.width)
    # Each step's features (one step's twice, while they move), and queries, keys and values of one band.
    memory += (steps + 1 if lag else 1) * buffer(lag + radius + band)
    memory += rows(window, config.width + 2 * config.embedding)
    if not config.correlation_propagation:
        return memory
    if plan.store_logits:
        pending = min(height, steps * lag + 2 * band) if lag else height
        return memory + stored_logits_bytes(batch, pending, (height, width), config.window_size, itemsize)
    history = sum(buffer((steps - t) * lag + lag + radius) for t in range(steps))
    # The queries and keys of all steps for one band.
    return memory + history + steps * rows(band + window, config.embedding)
