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
    """Consecutive rows of an image `[B, C, rows, W]` in one piece, appended below and dropped above."""

    def __init__(self) -> None:
        self._rows: Tensor | None = None
        self.start = self.stop = 0

    def extend(self, like: Tensor) -> Tensor:
        """Room for as many new rows as `like` has, of its type and width, to be written at once."""
        batch, channels, new, width = like.shape
        kept = self.stop - self.start
        rows = torch.empty(
            (batch, channels, kept + new, width),
            dtype=like.dtype,
            device=like.device,
            memory_format=torch.channels_last,
        )
        if kept:
            assert self._rows is not None
            rows[:, :, :kept] = self._rows[:, :, -kept:]
        self._rows = rows
        self.stop += new
        return rows[:, :, kept:]

    def get(self, a: int, b: int) -> Tensor:
        """Rows `a .. b-1`, without a copy."""
        assert self._rows is not None
        assert self.start <= a <= b <= self.stop
        end = self._rows.shape[2] - self.stop
        return self._rows[:, :, a + end : b + end]

    def drop(self, before: int) -> None:
        """Forgets rows above row `before`."""
        self.start = max(self.start, min(before, self.stop))
        if self.start == self.stop:
            self._rows = None


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
    start: deque[tuple[int, Tensor]] = field(
        default_factory=deque
    )  # s^0 by its first row; every step adds it
    states: dict[int, AttentionState] = field(default_factory=dict)  # stored logits, by band
    features: list[RowBuffer] = field(
        default_factory=list
    )  # what queries, keys and values come from, by step


class Convolution:
    """A 3x3 convolution over rows that come in blocks, zero-padded at the image border only."""

    def __init__(self, run: Run, conv: nn.Conv2d) -> None:
        # On a transposed image the kernels are transposed.
        self._weight = conv.weight.transpose(2, 3) if run.transposed else conv.weight
        self._bias = conv.bias
        self._height = run.height
        self._rows = RowBuffer()
        self._padding = (1, 1)

    def extend(self, like: Tensor) -> Tensor:
        """Room for the next rows, to be written before `result` is called."""
        if not self._rows.stop and like.shape[2] < self._height:
            self._padding = (0, 1)
            self._rows.extend(like[:, :, :1]).zero_()
        return self._rows.extend(like)

    def result(self) -> Tensor | None:
        """The rows of the result that are now complete."""
        rows = self._rows
        if self._padding == (0, 1) and rows.stop == self._height + 1:
            rows.extend(rows.get(rows.stop - 1, rows.stop)).zero_()
        finished = rows.stop >= self._height + 2 * (1 - self._padding[0])
        if not finished and rows.stop - rows.start < 3:
            return None
        result = F.conv2d(rows.get(rows.start, rows.stop), self._weight, self._bias, padding=self._padding)
        rows.drop(rows.stop if finished else rows.stop - 2)
        return result


def normalise(norm: nn.Module, rows: Tensor, out: Tensor) -> Tensor:
    """Batch norm in evaluation mode, written where it is needed."""
    assert isinstance(norm, nn.BatchNorm2d)
    unused = rows.new_empty(0), rows.new_empty(0)
    torch.native_batch_norm(
        rows,
        norm.weight,
        norm.bias,
        norm.running_mean,
        norm.running_var,
        False,
        0.0,
        norm.eps,
        out=(out, *unused),
    )
    return out


class InputStage:
    """Encoded image rows -> s^0."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._conv = Convolution(run, run.model.input_conv)
        self._next = 0

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        self._conv.extend(rows).copy_(rows)
        result = self._conv.result()
        if result is not None:
            self._run.start.append((self._next, result))
            self._next += result.shape[2]
        return _one_by_one(result)


class AttentionStage:
    """s^{t-1} -> what the non-local module makes of it, in whole bands."""

    def __init__(self, run: Run, t: int) -> None:
        self._run, self._t = run, t
        window = run.model.attention.window_size
        self._radius = run.height if window is None else window // 2
        self._next = 0
        run.features.append(RowBuffer())

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        features = self._run.features[self._t]
        F.relu(normalise(self._run.model.attention_norms[self._t], rows, features.extend(rows)), inplace=True)
        del rows
        while self._next < self._run.height and self._ready():
            yield self._band()

    def _ready(self) -> bool:
        below = self._next + self._run.plan.height + self._radius
        return self._run.features[self._t].stop >= min(self._run.height, below)

    def _band(self) -> Tensor:
        run, t, block = self._run, self._t, self._run.model.attention
        a, b = self._next, min(run.height, self._next + run.plan.height)
        top, bottom = max(0, a - self._radius), min(run.height, b + self._radius)
        propagate = run.model.config.correlation_propagation
        state = None
        if propagate and t and run.plan.store_logits:
            state = run.states.pop(a)
        elif propagate and t:
            state = AttentionState.from_history(
                tuple(block.query(features.get(a, b)) for features in run.features[:t]),
                tuple(block.key(features.get(top, bottom)) for features in run.features[:t]),
            )
        keep = propagate and run.plan.store_logits and t + 1 < run.steps
        new_state = 0
        if keep and not t:
            new_state = stored_logits_bytes(
                run.batch, b - a, (run.height, run.width), run.model.attention.window_size
            )
        seen = run.features[t].get(top, bottom)
        result, state = nonlocal_attention(
            block.query(run.features[t].get(a, b)),
            block.key(seen),
            block.value(seen),
            block.window_size,
            state,
            keep_state=keep,
            row_offset=a - top,
            max_memory=run.plan.workspace + new_state,
        )
        if keep:
            assert state is not None
            assert state.logits is not None
            run.states[a] = state
        result.add_(run.features[t].get(a, b))
        self._next = b
        self._forget(b)
        run.on_rows(b - a)
        return result

    def _forget(self, b: int) -> None:
        run, t = self._run, self._t
        window_top = run.height if b == run.height else b - self._radius
        history = run.model.config.correlation_propagation and not run.plan.store_logits
        # A history is needed until the last step is done with these rows.
        finished = range(run.steps) if history and t + 1 == run.steps else () if history else (t,)
        for i in finished:
            run.features[i].drop(window_top)


class ConvAStage:
    """The norm before `conv_a`, and `conv_a`."""

    def __init__(self, run: Run, t: int) -> None:
        self._norm = run.model.conv_a_norms[t]
        self._conv = Convolution(run, run.model.conv_a)

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        normalise(self._norm, rows, self._conv.extend(rows))
        return _one_by_one(self._conv.result())


class ConvBStage:
    """The norm and ReLU before `conv_b`, `conv_b`, and the addition of s^0: the step's new state s^t."""

    def __init__(self, run: Run, t: int) -> None:
        self._run = run
        self._last = t + 1 == run.steps
        self._norm = run.model.conv_b_norms[t]
        self._conv = Convolution(run, run.model.conv_b)
        self._next = 0

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        F.relu(normalise(self._norm, rows, self._conv.extend(rows)), inplace=True)
        del rows
        result = self._conv.result()
        if result is not None:
            a, self._next = self._next, self._next + result.shape[2]
            for first, start in self._run.start:
                low, high = max(a, first), min(self._next, first + start.shape[2])
                if low < high:
                    result[:, :, low - a : high - a].add_(start[:, :, low - first : high - first])
            while self._last and self._run.start and self._end_of_start() <= self._next:
                self._run.start.popleft()
        return _one_by_one(result)

    def _end_of_start(self) -> int:
        first, start = self._run.start[0]
        return first + start.shape[2]


class OutputStage:
    """s^T -> rows of the residual image."""

    def __init__(self, run: Run) -> None:
        self._norm = run.model.output_norms[str(run.steps)]
        self._conv = Convolution(run, run.model.output_conv)

    def push(self, rows: Tensor) -> Iterator[Tensor]:
        F.relu(normalise(self._norm, rows, self._conv.extend(rows)), inplace=True)
        return _one_by_one(self._conv.result())


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
