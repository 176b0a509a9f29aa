"""Exact whole-image inference of an NLRN in row bands: memory grows with the width, not the height.

Every layer is a stage that takes rows from the stage before it, as they come, and passes on the rows it can
compute; it keeps only the rows it still needs. Step t of the recurrence thus runs `window_size // 2 + 2` rows
(and up to a band) behind step t-1, and no pixel is computed twice. One band as high as the image is plain
whole-image inference: the same code, and nothing is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.nlrn import NLRN
from ..ops.nonlocal_attention import AttentionState, nonlocal_attention


@dataclass(frozen=True)
class BandPlan:
    """How to walk over an image.

    Args:
        height: rows of a band; the image's height for one band.
        store_logits: keep the propagated logits (fast) or recompute them from the history of queries and keys
            (less memory).
        workspace: bytes for the non-local operation's temporaries, its new state not counted.
    """

    height: int
    store_logits: bool
    workspace: int = 256 << 20


class RowBuffer:
    """Consecutive rows of an image `[B, C, rows, W]`, appended below and dropped above."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, Tensor]] = deque()
        self.stop = 0

    def append(self, rows: Tensor) -> None:
        self._blocks.append((self.stop, rows))
        self.stop += rows.shape[2]

    def get(self, a: int, b: int) -> Tensor:
        """Rows `a .. b-1`, without a copy if they came as one block."""
        parts = [
            rows[:, :, max(a - start, 0) : b - start]
            for start, rows in self._blocks
            if start < b and start + rows.shape[2] > a
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)

    def drop(self, before: int) -> None:
        """Forgets blocks that end at row `before` or above."""
        while self._blocks and self._blocks[0][0] + self._blocks[0][1].shape[2] <= before:
            self._blocks.popleft()


@dataclass
class Run:
    """What the stages of one run share."""

    model: NLRN
    steps: int
    plan: BandPlan
    batch: int
    height: int
    width: int
    transposed: bool
    on_rows: Callable[[int], None]
    start: RowBuffer = field(default_factory=RowBuffer)  # s^0, added by every step
    states: dict[int, AttentionState] = field(default_factory=dict)  # stored logits, by band
    queries: list[RowBuffer] = field(default_factory=list)  # the history, by step
    keys: list[RowBuffer] = field(default_factory=list)


class Convolution:
    """A 3x3 convolution over rows that come in blocks, zero-padded at the image border only."""

    def __init__(self, run: Run, conv: nn.Conv2d) -> None:
        # On a transposed image the kernels are transposed.
        self._weight = conv.weight.transpose(2, 3) if run.transposed else conv.weight
        self._bias = conv.bias
        self._left = run.height
        self._tail: Tensor | None = None

    def push(self, rows: Tensor) -> Tensor | None:
        """The rows of the result that are now complete."""
        first = self._tail is None
        self._left -= rows.shape[2]
        if first and not self._left:
            return F.conv2d(rows, self._weight, self._bias, padding=1)
        parts = [rows.new_zeros(rows[:, :, :1].shape) if self._tail is None else self._tail, rows]
        if not self._left:
            parts.append(torch.zeros_like(rows[:, :, :1]))
        rows = torch.cat(parts, 2)
        self._tail = rows[:, :, -2:].clone()
        return None if rows.shape[2] < 3 else F.conv2d(rows, self._weight, self._bias, padding=(0, 1))


class InputStage:
    """Encoded image rows -> s^0."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._conv = Convolution(run, run.model.input_conv)

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        result = self._conv.push(rows)
        if result is not None:
            self._run.start.append(result)
        return _one_by_one(result)


class AttentionStage:
    """s^{t-1} -> the normalised input of `conv_a`, in whole bands."""

    def __init__(self, run: Run, t: int) -> None:
        self._run, self._t = run, t
        window = run.model.attention.window_size
        self._radius = run.height if window is None else window // 2
        self._features, self._values = RowBuffer(), RowBuffer()
        self._next = 0
        run.queries.append(RowBuffer())
        run.keys.append(RowBuffer())

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        run, t, block = self._run, self._t, self._run.model.attention
        features = F.relu(run.model.attention_norms[t](rows), inplace=True)
        run.queries[t].append(block.query(features))
        run.keys[t].append(block.key(features))
        self._values.append(block.value(features))
        self._features.append(features)
        del rows, features
        while self._next < run.height and self._ready():
            yield self._band()

    def _ready(self) -> bool:
        below = self._next + self._run.plan.height + self._radius
        return self._values.stop >= min(self._run.height, below)

    def _band(self) -> Tensor:
        run, t = self._run, self._t
        a, b = self._next, min(run.height, self._next + run.plan.height)
        top, bottom = max(0, a - self._radius), min(run.height, b + self._radius)
        propagate = run.model.config.correlation_propagation
        state = None
        if propagate and t and run.plan.store_logits:
            state = run.states.pop(a)
        elif propagate and t:
            state = AttentionState.from_history(
                tuple(buffer.get(a, b) for buffer in run.queries[:t]),
                tuple(buffer.get(top, bottom) for buffer in run.keys[:t]),
            )
        keep = propagate and run.plan.store_logits and t + 1 < run.steps
        new_state = 0
        if keep and not t:
            new_state = stored_logits_bytes(
                run.batch, b - a, (run.height, run.width), run.model.attention.window_size
            )
        result, state = nonlocal_attention(
            run.queries[t].get(a, b),
            run.keys[t].get(top, bottom),
            self._values.get(top, bottom),
            run.model.attention.window_size,
            state,
            keep_state=keep,
            row_offset=a - top,
            max_memory=run.plan.workspace + new_state,
        )
        if keep:
            assert state is not None
            assert state.logits is not None
            run.states[a] = state
        result.add_(self._features.get(a, b))
        self._next = b
        self._forget(b)
        run.on_rows(b - a)
        normalised: Tensor = run.model.conv_a_norms[t](result)
        return normalised

    def _forget(self, b: int) -> None:
        run, t = self._run, self._t
        window_top = run.height if b == run.height else b - self._radius
        self._features.drop(b)
        self._values.drop(window_top)
        history = run.model.config.correlation_propagation and not run.plan.store_logits
        # A history is needed until the last step is done with these rows.
        finished = range(run.steps) if history and t + 1 == run.steps else () if history else (t,)
        for i in finished:
            run.queries[i].drop(b)
            run.keys[i].drop(window_top)


class ConvAStage:
    """`conv_a` and the norm and ReLU after it."""

    def __init__(self, run: Run, t: int) -> None:
        self._norm = run.model.conv_b_norms[t]
        self._conv = Convolution(run, run.model.conv_a)

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        result = self._conv.push(rows)
        return _one_by_one(None if result is None else F.relu(self._norm(result), inplace=True))


class ConvBStage:
    """`conv_b` and the addition of s^0: the step's new state s^t."""

    def __init__(self, run: Run, t: int) -> None:
        self._run = run
        self._last = t + 1 == run.steps
        self._conv = Convolution(run, run.model.conv_b)
        self._next = 0

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        result = self._conv.push(rows)
        if result is not None:
            a, self._next = self._next, self._next + result.shape[2]
            result.add_(self._run.start.get(a, self._next))
            if self._last:
                self._run.start.drop(self._next)
        return _one_by_one(result)


class OutputStage:
    """s^T -> rows of the residual image."""

    def __init__(self, run: Run) -> None:
        self._norm = run.model.output_norms[str(run.steps)]
        self._conv = Convolution(run, run.model.output_conv)

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        return _one_by_one(self._conv.push(F.relu(self._norm(rows), inplace=True)))


Stage = InputStage | AttentionStage | ConvAStage | ConvBStage | OutputStage


def run_bands(
    model: NLRN,
    image: Tensor,
    sigma: float | Tensor | None,
    steps: int,
    plan: BandPlan,
    *,
    transposed: bool = False,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Tensor:
    """The residual `[B, C, H, W]` that `model` adds to `image` after `steps` steps.

    Args:
        model: in evaluation mode, on the device of the image.
        image: `[B, C, H, W]` in the dtype of the model.
        sigma: as the model takes it.
        steps: one of the model's heads.
        plan: band height and state scheme.
        transposed: walk along the width instead of the height (memory then grows with the height).
        on_rows: called with the number of rows that a step has just finished, `steps * H` in all.
    """
    if transposed:
        image = image.transpose(2, 3)
    batch, _, height, width = image.shape
    run = Run(model, steps, plan, batch, height, width, transposed, on_rows)
    stages: list[Stage] = [InputStage(run)]
    for t in range(steps):
        stages += [AttentionStage(run, t), ConvAStage(run, t), ConvBStage(run, t)]
    stages.append(OutputStage(run))

    residual = torch.empty_like(image, memory_format=torch.contiguous_format)
    done = 0
    for y in range(0, height, plan.height):
        rows = model.encode(image[:, :, y : y + plan.height], sigma)
        for result in _flow(stages, rows.contiguous(memory_format=torch.channels_last)):
            residual[:, :, done : done + result.shape[2]] = result
            done += result.shape[2]
    assert done == height
    return residual.transpose(2, 3) if transposed else residual


def _flow(stages: list[Stage], rows: Tensor) -> Iterator[Tensor]:
    """Pushes rows through all stages, depth first, so that no stage runs ahead of those below it.

    References are dropped early: a block must not outlive its use while later stages run.
    """
    running = [_one_by_one(rows)]
    del rows
    while running:
        block = next(running[-1], None)
        if block is None:
            running.pop()
        elif len(running) > len(stages):
            yield block
        else:
            running.append(stages[len(running) - 1].push(block))
        del block


def _one_by_one(block: Tensor | None) -> Iterator[Tensor]:
    """The block if there is one; holds no reference to it afterwards."""
    blocks = [] if block is None else [block]
    del block
    while blocks:
        yield blocks.pop()


def stored_logits_bytes(batch: int, rows: int, size: tuple[int, int], window_size: int | None) -> int:
    """An upper bound of the float32 logits that are stored for `rows` rows of an image of `size` (H, W)."""
    keys = 1
    for side in size:
        # Eight by eight queries see window_size + 7 keys along an axis, or all there are.
        keys *= side if window_size is None else min(side, window_size + 7)
    return 4 * batch * keys * _up(rows) * _up(size[1])


def _up(n: int) -> int:
    return -(-n // 8) * 8
