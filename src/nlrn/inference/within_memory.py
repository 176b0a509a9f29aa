"""Images of any size through any method, within a memory budget."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..models.contract import Model, ModelInfo, info_of
from ..models.nlrn import NLRN
from .maps import is_map
from .memory import default_budget
from .patches import restore_patches, restore_tiles
from .planning import MIB, Plan, plans
from .precision import ieee_float32
from .wavefront import run_bands

log = logging.getLogger(__name__)

# Sides of square tiles without their halo, largest first.
TILES = (2048, 1024, 512, 256, 128, 64)

Progress = Callable[[float], None]


def restore(
    model: Model,
    image: Tensor,
    sigma: float | Tensor | None = None,
    *,
    steps: int | None = None,
    ensemble: bool = False,
    patches: tuple[int, int] | Literal["default"] | None = "default",
    precision: torch.dtype | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Restores whole images of any size within a memory budget.

    An `NLRN` is run as a whole where that fits `max_memory`, else in row bands, else in square tiles with the
    exact halo: the numbers are those of the whole image in every case (to float32 rounding). A method that declares
    a halo is called on overlapping tiles where the whole image does not fit. Any other is called with the whole image.
    Out of memory, the next smaller way is tried.

    Args:
        model: an `NLRN` in evaluation mode, or any `model(image, sigma) -> restored` (see `nlrn.models.contract`).
        image: `[B, C, H, W]`, float in [0, 1], on the device of the model.
        sigma: noise standard deviation in the same units, a number or `[B]`; for a model that says so
            (`ModelInfo.sigma_map`) also that of each pixel, `[B, 1, H, W]` or `[1, 1, H, W]`.
        steps: stop after this many steps; one of the model's heads.
        ensemble: average over the eight flips and rotations of the image (eight times the work).
        patches: `(size, stride)` for the official protocol of averaged patches, `None` for whole images; by
            default what the model's configuration says.
        precision: the dtype in which an `NLRN` is computed (float32, bfloat16, float16), by default that of the model
            whatever the image's; the residual is added in the image's own.
        max_memory: bytes; by default half of what is available.
        progress: called with the fraction done, from 0 to 1.

    Returns:
        A tensor of the shape, dtype and device of `image`, without gradients, not clipped.

    Raises:
        ValueError: arguments that the model refuses, or a model in training mode.
        MemoryError: nothing fits `max_memory`.

    Example:
        >>> import torch, nlrn
        >>> from nlrn.inference import restore
        >>> model = nlrn.load_model("nlrn-small-gray")
        >>> restore(model, torch.rand(1, 1, 40, 50), sigma=0.1).shape
        torch.Size([1, 1, 40, 50])
    """
    report = progress or no_progress
    with torch.no_grad(), ieee_float32():
        if not ensemble:
            return _restore_once(model, image, sigma, steps, patches, precision, max_memory, report)
        total = torch.zeros_like(image)
        for i in range(8):
            turned = _turn(image, i)
            level = _turn(sigma, i) if is_map(sigma) else sigma
            part = _restore_once(
                model, turned, level, steps, patches, precision, max_memory, part_of(report, i, 8)
            )
            total += _turn_back(part, i)
        return total / 8


def no_progress(fraction: float) -> None:
    """Ignores the progress."""


def part_of(progress: Progress, index: int, count: int) -> Progress:
    """The progress of one of several equal parts."""
    return lambda fraction: progress((index + fraction) / count)


def _turn(image: Tensor, i: int) -> Tensor:
    """The `i`-th of the eight flips and rotations."""
    image = image.rot90(i % 4, (2, 3))
    return image.flip(3) if i >= 4 else image


def _turn_back(image: Tensor, i: int) -> Tensor:
    image = image.flip(3) if i >= 4 else image
    return image.rot90(-(i % 4), (2, 3))


def _restore_once(
    model: Model,
    image: Tensor,
    sigma: float | Tensor | None,
    steps: int | None,
    patches: tuple[int, int] | Literal["default"] | None,
    precision: torch.dtype | None,
    max_memory: int | None,
    progress: Progress,
) -> Tensor:
    info = info_of(model)
    steps = info.check_steps(steps)
    budget = default_budget(image.device) if max_memory is None else max_memory
    # A wrapper that hands on a network's declaration, such as `torch.compile`'s, is called with whole images.
    if not isinstance(model, NLRN):
        return _call(model, info, image, sigma, budget, progress)
    assert steps is not None
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before restoring images")
    if info.cut != "bands":
        return _call(_After(model, steps), info, image, sigma, budget, progress)
    levels: Tensor | None = None
    if model.config.noise_channel:
        levels = model.check_sigma(sigma, image)
    if image.ndim != 4:
        raise ValueError(f"image must be [B, C, H, W], got shape {tuple(image.shape)}")
    dtype = precision or next(model.parameters()).dtype
    size = model.config.patch_protocol if patches == "default" else patches
    if size is None:
        return _restore_whole(model, image, levels, steps, dtype, budget, progress)

    def restore_batch(stack: Tensor, sigmas: Tensor | None) -> Tensor:
        return _restore_whole(model, stack, sigmas, steps, dtype, budget, no_progress)

    shape = (1, image.shape[1], min(size[0], image.shape[2]), min(size[0], image.shape[3]))
    batch = 32
    while batch > 1 and not _fits(model, (batch, *shape[1:]), steps, budget, image.device.type, dtype):
        batch //= 2
    return restore_patches(restore_batch, image, levels, size, batch, progress)


class _After:
    """A network that stops after some steps."""

    def __init__(self, model: NLRN, steps: int) -> None:
        self._model, self._steps, self._dtype = model, steps, next(model.parameters()).dtype

    def __call__(self, image: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        restored: Tensor = self._model(image.to(self._dtype), sigma, steps=self._steps)
        return restored.to(image.dtype)


def _call(
    model: Model,
    info: ModelInfo,
    image: Tensor,
    sigma: float | Tensor | None,
    budget: int,
    progress: Progress,
) -> Tensor:
    """Calls a method that is not an `NLRN`: with the whole image, or with tiles where that does not fit."""
    batch, channels, height, width = image.shape
    if is_map(sigma) and not info.sigma_map:
        raise ValueError(
            f"{info.name} takes one noise level for an image, and sigma has one for each pixel; give a number, or a "
            "network with a noise channel"
        )
    size = f"{width}x{height} pixels with {info.name}"
    tiles: list[int | None] = [None]
    halo = 0
    if info.memory is not None:
        scale = image.element_size() / 4
        own = 2 * image.numel() * image.element_size()
        needed: dict[int | None, float] = {None: info.memory((batch, channels, height, width)) * scale}
        if info.cut == "tiles" and info.halo is not None:
            halo = -(-info.halo // info.grid) * info.grid
            for side in (length // info.grid * info.grid for length in TILES):
                seen = side + 2 * halo
                if seen < max(height, width):
                    piece = (batch, channels, min(seen, height), min(seen, width))
                    needed[side] = info.memory(piece) * scale + own
        tiles = [tile for tile, bytes_ in needed.items() if bytes_ <= budget]
        if not tiles:
            raise MemoryError(
                f"restoring {size} takes at least {min(needed.values()) / MIB:.0f} MiB of memory, "
                f"{budget / MIB:.0f} MiB are allowed"
            )
    for tile in tiles:
        try:
            if tile is None:
                restored = model(image, sigma)
            else:
                levels = None
                if sigma is not None:
                    levels = torch.as_tensor(sigma, dtype=image.dtype)
                    levels = levels if is_map(sigma) else levels.expand(batch)
                restored = restore_tiles(model, image, levels, tile, halo, progress)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            log.debug("out of memory with tiles of %s: %s", tile, error)
            failed = error
        else:
            progress(1.0)
            return restored
    raise MemoryError(f"out of memory restoring {size}") from failed


def _fits(
    model: NLRN, shape: tuple[int, int, int, int], steps: int, budget: int, device: str, dtype: torch.dtype
) -> bool:
    try:
        return plans(model.config, shape, steps, budget, device, dtype)[0].bands.store_logits
    except MemoryError:
        return False


def _restore_whole(
    model: NLRN,
    image: Tensor,
    sigma: Tensor | None,
    steps: int,
    dtype: torch.dtype,
    budget: int,
    progress: Progress,
) -> Tensor:
    """The first plan that fits; when memory runs out all the same, the next one."""
    batch, channels, height, width = image.shape
    shape = (batch, channels, height, width)
    fitting = plans(model.config, shape, steps, budget, image.device.type, dtype)
    for i, plan in enumerate(fitting):
        log.debug("restoring %dx%d pixels with %s", width, height, plan)
        try:
            return _run_plan(model, image, sigma, steps, plan, dtype, progress)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            if i + 1 == len(fitting):
                raise MemoryError(
                    f"out of memory restoring {width}x{height} pixels, even in the smallest pieces; "
                    "free some memory, or restore a smaller image"
                ) from error
            log.debug("out of memory: %s", error)
        if image.device.type == "cuda":
            torch.cuda.empty_cache()
    raise AssertionError("no plan")


def _out_of_memory(error: Exception) -> bool:
    kinds = (torch.OutOfMemoryError, MemoryError)
    # The CPU's allocator, and CUDA's libraries, which PyTorch passes on as they are.
    words = ("can't allocate memory", "STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    return isinstance(error, kinds) or any(word in str(error) for word in words)


def _run_plan(
    model: NLRN,
    image: Tensor,
    sigma: Tensor | None,
    steps: int,
    plan: Plan,
    dtype: torch.dtype,
    progress: Progress,
) -> Tensor:
    pieces = 1
    if plan.tile is not None:
        height, width = image.shape[2:]
        pieces = -(-height // plan.tile) * -(-width // plan.tile)
    finished = 0

    def restore_piece(piece: Tensor, level: Tensor | None) -> Tensor:
        nonlocal finished
        length = piece.shape[3] if plan.transposed else piece.shape[2]
        done, rows = 0, steps * model.config.positions(length)

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            progress((finished + done / rows) / pieces)

        residual = run_bands(
            model,
            piece.to(next(model.parameters()).dtype),
            level,
            steps,
            plan.bands,
            dtype=dtype,
            transposed=plan.transposed,
            on_rows=on_rows,
        )
        finished += 1
        # Added in the image's own precision: in half precision the residual alone is rounded.
        return piece + residual.to(piece.dtype)

    if plan.tile is None:
        return restore_piece(image, sigma)
    halo = model.config.halo
    assert halo is not None
    return restore_tiles(restore_piece, image, sigma, plan.tile, halo)
