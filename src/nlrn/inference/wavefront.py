"""Exact whole-image inference of an NLRN in row bands: memory grows with the width, not the height.

Every layer is a stage that takes rows from the stage before it, as they come, and passes on the rows it can
compute; it keeps only the rows it still needs. Step t of the recurrence thus runs `window_size // 2 + 2` rows
(and up to a band) behind step t-1, and no pixel is computed twice. One band as high as the image is plain
whole-image inference: the same code, and nothing is copied.

Where the recurrence runs at a part of the resolution, its rows are rows of positions, and the stages of the stem and of
the tail take and pass on rows of pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.nlrn import NLRN, NLRNConfig
from ..ops.depth_to_space import add_depth_to_space
from ..ops.epilogue import finish, separate_bias
from ..ops.nonlocal_attention import AttentionState, nonlocal_attention
from ..ops.nonlocal_attention.memory import KEY_BLOCK, history_bytes
from .folding import Folded, Kernel, fold
from .maps import is_map, part_of_map
from .rows import Block, RowBuffer


@dataclass(frozen=True)
class BandPlan:
    """The height of bands, and what they keep.

    Args:
        height: rows of a band, of the recurrence; all of them for one band.
        store_logits: keep the propagated logits (fast) or recompute them from the history of queries and keys
            (less memory).
        workspace: bytes for the non-local operation's temporaries, its new state not counted.
    """

    height: int
    store_logits: bool
    workspace: int = 256 << 20


@dataclass
class Run:
    """The state that the stages of one run share; `height` and `width` are those of the recurrence."""

    config: NLRNConfig
    folded: Folded
    steps: int
    plan: BandPlan
    batch: int
    height: int
    width: int
    on_rows: Callable[[int], None]
    backend: str | None = None
    start: deque[tuple[int, Tensor]] = field(
        default_factory=deque
    )  # s^0 by its first row; every step adds it
    states: dict[int, AttentionState] = field(default_factory=dict)  # stored logits, by band
    features: list[RowBuffer] = field(
        default_factory=list
    )  # what queries, keys and values come from, by step
    full: RowBuffer = field(default_factory=RowBuffer)  # the stem's features, until the tail has added them


class Convolution:
    """A 3x3 convolution over rows that come in blocks, zero-padded at the image border only.

    Args:
        kernel: kernel of the convolution.
        height: height of the image.
        finish: `finish(bias, rows, out)` is the elementwise operation that follows; it adds the bias where this is not
            `None`, because the convolution has left it out.
    """

    def __init__(
        self,
        kernel: Kernel,
        height: int,
        finish: Callable[[Tensor | None, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        leaves = finish is not None and separate_bias(kernel.weight)
        self._weight, self._bias, self._height = kernel.weight, None if leaves else kernel.bias, height
        self._finish = None if finish is None else partial(finish, kernel.bias if leaves else None)
        self._rows = RowBuffer()
        self._padding = (1, 1)

    def push(self, new: Block) -> list[Block]:
        """The rows of the result that are now complete."""
        rows = self._rows
        if not rows.stop and new.count < self._height:
            self._padding = (0, 1)
            rows.append(new.row_of_zeros())
        rows.append(new)
        if self._padding == (0, 1) and rows.stop == self._height + 1:
            rows.append(Block(torch.zeros_like(rows.get(rows.stop - 1, rows.stop))))
        finished = rows.stop >= self._height + 2 * (1 - self._padding[0])
        if not finished and rows.stop - rows.start < 3:
            return []
        seen = rows.get(rows.start, rows.stop)
        result = F.conv2d(seen, self._weight, self._bias, padding=self._padding)
        rows.drop(rows.stop if finished else rows.stop - 2)
        return [Block(result, self._finish)]


class DownStage:
    """Rows of the stem's features, kept for the tail -> s^0, in whole positions."""

    def __init__(self, run: Run) -> None:
        self._run, self._kernel = run, run.folded.start
        self._next = 0  # row of pixels

    def push(self, rows: Block) -> list[Block]:
        full, stride = self._run.full, self._run.config.stride
        full.append(rows)
        a, b = self._next, full.stop // stride * stride
        if a == b:
            return []
        self._next = b
        rectified = full.get(a, b).clamp_min(0)
        return [Block(F.conv2d(rectified, self._kernel.weight, self._kernel.bias, stride=stride))]


class StartStage:
    """s^0, kept -> the first step's features."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._next = 0

    def push(self, rows: Block) -> list[Block]:
        start, norm = rows.write(), self._run.folded.first
        self._run.start.append((self._next, start))
        self._next += start.shape[2]
        return [Block(torch.addcmul(norm.shift, start, norm.scale), partial(_relu, None))]


class AttentionStage:
    """Features -> what the non-local module makes of them, in whole bands."""

    def __init__(self, run: Run, t: int) -> None:
        self._run, self._t = run, t
        self._projections = run.folded.query, run.folded.key, run.folded.steps[t].value
        self._together: Kernel | None = None
        if separate_bias(run.folded.query.weight):
            weight = torch.cat([kernel.weight for kernel in self._projections]).flatten(1)
            self._together = Kernel(weight, torch.cat([kernel.bias for kernel in self._projections]))
        window = run.config.window_size
        self._radius = run.height if window is None else window // 2
        self._next = 0
        run.features.append(RowBuffer())

    def push(self, rows: Block) -> Iterator[Block]:
        self._run.features[self._t].append(rows)
        while self._next < self._run.height and self._ready():
            yield self._band()

    def _ready(self) -> bool:
        below = self._next + self._run.plan.height + self._radius
        return self._run.features[self._t].stop >= min(self._run.height, below)

    def _band(self) -> Block:
        run, t = self._run, self._t
        a, b = self._next, min(run.height, self._next + run.plan.height)
        top, bottom = max(0, a - self._radius), min(run.height, b + self._radius)
        propagate = run.config.correlation_propagation
        seen, own = run.features[t].get(top, bottom), run.features[t].get(a, b)
        size, item = (run.height, run.width), own.itemsize
        state, memory = None, run.plan.workspace
        if propagate and t and run.plan.store_logits:
            state = run.states.pop(a)
        elif propagate and t:
            if own.device.type != "cpu":
                memory += history_workspace(run.config, run.batch, size, t + 1, item)
            state = AttentionState.from_history(
                tuple(_project(features.get(a, b), run.folded.query) for features in run.features[:t]),
                tuple(_project(features.get(top, bottom), run.folded.key) for features in run.features[:t]),
            )
        keep = propagate and run.plan.store_logits and t + 1 < run.steps
        if keep and not t:
            memory += stored_logits_bytes(run.batch, b - a, size, run.config.window_size, item)
        query, key, value = self._query_key_value(own, seen, a - top)
        result, state = nonlocal_attention(
            query,
            key,
            value,
            run.config.window_size,
            state,
            keep_state=keep,
            row_offset=a - top,
            max_memory=memory,
            backend=run.backend,
        )
        if keep:
            assert state is not None
            run.states[a] = state
        self._next = b
        self._forget(b)
        run.on_rows(b - a)
        scale = run.folded.steps[t].features
        # `own` stays in memory until the next rows of this step come, which is after the block is written.
        return Block(result, lambda rows, out: torch.addcmul(rows, own, scale, out=out))

    def _query_key_value(self, own: Tensor, seen: Tensor, offset: int) -> tuple[Tensor, Tensor, Tensor]:
        """Query of a band's `own` rows, key and value of all that are `seen`."""
        if self._together is None:
            of_query, of_key, of_value = self._projections
            return _project(own, of_query), _project(seen, of_key), _project(seen, of_value)
        # On a GPU a single product, which adds the biases, reads the features once: also for queries nobody asks for.
        kernel, rows = self._together, own.shape[2]
        parts = F.linear(seen.permute(0, 2, 3, 1), kernel.weight, kernel.bias).permute(0, 3, 1, 2)
        embedding = self._run.config.embedding
        query = parts[:, :embedding, offset : offset + rows]
        return query, parts[:, embedding : 2 * embedding], parts[:, 2 * embedding :]

    def _forget(self, b: int) -> None:
        run, t = self._run, self._t
        window_top = run.height if b == run.height else b - self._radius
        history = run.config.correlation_propagation and not run.plan.store_logits
        if not history:
            run.features[t].drop(window_top)
        elif t + 1 == run.steps:  # a history is needed until the last step is done with these rows
            for features in run.features:
                features.drop(window_top)


def _project(features: Tensor, kernel: Kernel) -> Tensor:
    """A 1x1 convolution."""
    return F.conv2d(features, kernel.weight, kernel.bias)


def _relu(bias: Tensor | None, rows: Tensor, out: Tensor) -> Tensor:
    """The bias and the ReLU after `conv_a`."""
    return finish(rows, bias, out=out)


class AddStart:
    """The addition of s^0 and the ReLU after `conv_b`; the next step or the head follows."""

    def __init__(self, run: Run, t: int) -> None:
        self._run = run
        self._last = t + 1 == run.steps
        self._scale = run.folded.steps[t].start
        self._next = 0

    def __call__(self, bias: Tensor | None, rows: Tensor, out: Tensor) -> Tensor:
        a, self._next = self._next, self._next + rows.shape[2]
        for first, start in self._run.start:
            low, high = max(a, first), min(self._next, first + start.shape[2])
            if low < high:
                own, of_start = slice(low - a, high - a), start[:, :, low - first : high - first]
                finish(rows[:, :, own], bias, of_start, self._scale, out=out[:, :, own])
        while self._last and self._run.start and self._end_of_start() <= self._next:
            self._run.start.popleft()
        return out

    def _end_of_start(self) -> int:
        first, start = self._run.start[0]
        return first + start.shape[2]


class UpStage:
    """The stage from the head of the recurrence to features at full resolution, with the stem's added, rectified."""

    def __init__(self, run: Run, kernel: Kernel) -> None:
        self._run = run
        self._weight, self._bias = kernel.weight.flatten(1), kernel.bias

    def push(self, rows: Block) -> list[Block]:
        full, stride, rectified = self._run.full, self._run.config.stride, rows.write()
        a, b = full.start, full.start + stride * rectified.shape[2]
        parts = F.linear(rectified.permute(0, 2, 3, 1), self._weight, self._bias).permute(0, 3, 1, 2)
        total = add_depth_to_space(full.get(a, b), parts, stride)
        full.drop(b)
        return [Block(total, partial(_relu, None))]


Stage = DownStage | StartStage | AttentionStage | UpStage | Convolution


def run_bands(
    model: NLRN,
    image: Tensor,
    sigma: float | Tensor | None,
    steps: int,
    plan: BandPlan,
    *,
    dtype: torch.dtype | None = None,
    transposed: bool = False,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """The residual `[B, C, H, W]` that `model` adds to `image` after `steps` steps.

    Args:
        model: network in evaluation mode, on the device of the image.
        image: `[B, C, H, W]` in the dtype of the model.
        sigma: noise level in the model's units, as `NLRN` takes it.
        steps: one of the model's heads.
        plan: band height and state scheme.
        dtype: dtype of the arithmetic; by default that of the model.
        transposed: walk along the width instead of the height (memory then grows with the height).
        on_rows: called with the number of rows of the recurrence that a step has just finished.
    """
    if transposed:
        image = image.transpose(2, 3)
        sigma = sigma.transpose(2, 3) if is_map(sigma) else sigma
    level, size = model.noise_level(image, sigma), image.shape[2:]
    image = model.pad(image)
    batch, _, height, width = image.shape
    stride = model.config.stride
    folded = fold(model, steps, dtype or image.dtype, transposed=transposed)
    size_of_trunk = height // stride, width // stride
    run = Run(model.config, folded, steps, plan, batch, *size_of_trunk, on_rows, model.attention.backend)
    stages: list[Stage] = []
    if folded.around is None:
        stages.append(Convolution(folded.start, height))
    else:
        stages += [
            Convolution(folded.around.stem_a, height, _relu),
            Convolution(folded.around.stem_b, height),
        ]
        stages.append(DownStage(run))
    stages.append(StartStage(run))
    for t in range(steps):
        conv_a = Convolution(folded.steps[t].conv_a, run.height, _relu)
        conv_b = Convolution(folded.steps[t].conv_b, run.height, AddStart(run, t))
        stages += [AttentionStage(run, t), conv_a, conv_b]
    if folded.around is not None:
        stages += [UpStage(run, folded.around.up), Convolution(folded.around.tail_a, height, _relu)]
    stages.append(Convolution(folded.last, height))

    residual = torch.empty_like(image, memory_format=torch.contiguous_format)
    done, band = 0, plan.height * stride
    for y in range(0, height, band):
        rows = model.encode(image[:, :, y : y + band], part_of_map(level, slice(y, y + band))).to(
            dtype or image.dtype
        )
        for result in _flow(stages, Block(rows.contiguous(memory_format=torch.channels_last))):
            result.write(residual[:, :, done : done + result.count])
            done += result.count
    assert done == height
    residual = residual[:, :, : size[0], : size[1]]
    return residual.transpose(2, 3) if transposed else residual


def _flow(stages: list[Stage], rows: Block) -> Iterator[Block]:
    """Pushes rows through all stages, depth first, so that no stage runs ahead of those below it."""
    running = [iter([rows])]
    while running:
        block = next(running[-1], None)
        if block is None:
            running.pop()
        elif len(running) > len(stages):
            yield block
        else:
            running.append(iter(stages[len(running) - 1].push(block)))


def stored_logits_bytes(
    batch: int, rows: int, size: tuple[int, int], window_size: int | None, itemsize: int
) -> int:
    """An upper bound of the bytes of the logits stored for `rows` rows of an image of `size` (H, W).

    They are float32 for float32 images (`itemsize` 4), else float16 relative to some float32 numbers. In half precision
    the chunked backend alone, which keeps float32 logits, takes up to twice that.
    """
    keys = 1
    for side in size:
        # Eight by eight queries see window_size + 7 keys along an axis, or all there are.
        keys *= side if window_size is None else min(side, window_size + 7)
    # The triton backend keeps whole blocks.
    block = max(KEY_BLOCK.values())
    keys = _up(keys, block)
    if itemsize == 2:
        keys += 2 * (keys // block)
    return itemsize * batch * keys * _up(rows, 8) * _up(size[1], 8)


def history_workspace(
    config: NLRNConfig, batch: int, size: tuple[int, int], steps: int, itemsize: int
) -> int:
    """The bytes that the triton backend needs to recompute the logits of a step from the history."""
    shape = (batch, config.width, *size)
    return history_bytes(shape, steps * config.embedding, config.window_size, itemsize)


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
