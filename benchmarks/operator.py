"""The non-local operation: every backend and its peers, first the numbers, then time and memory.

    python -m benchmarks.operator --sides 64,128,256,512 --out results
    python -m benchmarks.operator --dtype float32,bfloat16
    python -m benchmarks.operator --sides 64,128,256,512,1024,2048 --longest 20
    python -m benchmarks.operator --instructions avx2

Peers: the dense reference, chunked PyTorch, the C++ kernel, compiled FlexAttention, and NATTEN where it is installed.
FlexAttention and NATTEN compute one step without a propagated state (they have no place for one); NATTEN moves windows
inward at the border instead of cutting them off, so its numbers are checked, and mean something, on interior pixels
only.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor

from nlrn.inference.memory import default_budget
from nlrn.inference.wavefront import stored_logits_bytes
from nlrn.ops.nonlocal_attention import BACKENDS, nonlocal_attention, refusals
from nlrn.ops.nonlocal_attention.compile import VARIANTS

from .common import peak_memory, plot, seconds, show, tell, write

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
TILE = (8, 16)  # tokens of a block of FlexAttention, so that blocks are as compact as ours
OURS = ("native", "triton")  # kernels, which are timed however long they take


def backend(name: str, window: int) -> Step:
    def step(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return nonlocal_attention(
            query, key, value, window, backend=name, keep_state=False, max_memory=8 << 30
        )[0]

    return step


def flex_attention(height: int, width: int, window: int, device: torch.device) -> Step:
    """Compiled FlexAttention over tokens in tile order, with the window as a block mask."""
    from torch.nn.attention import flex_attention as flex

    rows, columns = TILE
    tiles_x = width // columns

    def position(token: Tensor) -> tuple[Tensor, Tensor]:
        tile, within = token // (rows * columns), token % (rows * columns)
        return tile // tiles_x * rows + within // columns, tile % tiles_x * columns + within % columns

    def inside(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        (qy, qx), (ky, kx) = position(q), position(k)
        return ((qy - ky).abs() <= window // 2) & ((qx - kx).abs() <= window // 2)

    tokens = height * width
    mask = torch.compile(flex.create_block_mask)(inside, None, None, tokens, tokens, device=str(device))
    attend = torch.compile(flex.flex_attention, dynamic=False)

    def to_tokens(image: Tensor) -> Tensor:
        tiles = image.unflatten(2, (-1, rows)).unflatten(4, (-1, columns))
        return tiles.permute(0, 2, 4, 3, 5, 1).flatten(1, 4)[:, None].contiguous()

    def step(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = attend(*(to_tokens(x) for x in (query, key, value)), block_mask=mask, scale=1.0)[:, 0]
        tiles = out.unflatten(1, (height // rows, tiles_x, rows, columns))
        return tiles.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)

    return step


def natten(window: int) -> Step:
    from natten.functional import na2d

    def step(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        heads_last = [x.permute(0, 2, 3, 1)[:, :, :, None] for x in (query, key, value)]
        return na2d(*heads_last, kernel_size=window, scale=1.0)[:, :, :, 0].permute(0, 3, 1, 2)

    return step


def images(side: int, channels: tuple[int, int], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    generator = torch.Generator().manual_seed(side)
    made = [
        torch.randn(1, c, side, side, generator=generator) * scale
        for c, scale in ((channels[0], 0.3), (channels[0], 0.3), (channels[1], 1.0))
    ]
    return [x.to(device, dtype).contiguous(memory_format=torch.channels_last) for x in made]


def peers(
    side: int, window: int, device: torch.device, sample: list[Tensor], slow: Collection[str] = ()
) -> dict[str, Callable[[], Step]]:
    """What makes each of them, all but the slow ones: a mask for FlexAttention alone takes minutes at large sides."""
    found = {}
    for name, reason in refusals(*sample, window).items():
        if name in slow:
            continue
        if name == "reference" and side > 64:
            continue  # a quarter of a gigabyte of logits at 64x64, 4 GB at 128x128
        if name == "reference" or reason is None:
            found[name] = functools.partial(backend, name, window)
    if "FlexAttention" not in slow and side % TILE[0] == 0 and side % TILE[1] == 0:
        found["FlexAttention"] = functools.partial(flex_attention, side, side, window, device)
    if "NATTEN" not in slow and importlib.util.find_spec("natten"):
        found["NATTEN"] = functools.partial(natten, window)
    return found


def largest_error(name: str, step: Step, arguments: list[Tensor], exact: Tensor, window: int) -> float:
    difference = (step(*arguments).double() - exact).abs()
    if name == "NATTEN":
        inner = slice(window // 2, -(window // 2))
        difference = difference[:, :, inner, inner]
    return difference.max().item()


def propagated(name: str, arguments: list[Tensor], window: int, device: torch.device) -> float | None:
    """Seconds of a step from stored state to stored state; `None` where that takes more than half of the memory."""
    _, _, value = arguments
    side = value.shape[2]
    if stored_logits_bytes(1, side, (side, side), window, value.itemsize) > default_budget(device):
        return None
    state = nonlocal_attention(*arguments, window, backend=name, max_memory=64 << 30)[1]

    def step() -> None:
        nonlocal state
        state = nonlocal_attention(*arguments, window, state, backend=name, max_memory=64 << 30)[1]

    return seconds(step, device)


def measure(
    name: str, step: Step, arguments: list[Tensor], window: int, device: torch.device
) -> dict[str, object]:
    query, _, value = arguments
    side = query.shape[2]
    took = seconds(lambda: step(*arguments), device)
    handed_on = propagated(name, arguments, window, device) if name in BACKENDS[:-1] else None
    flops = 2 * window**2 * (query.shape[1] + value.shape[1]) * side * side
    return {
        "backend": name,
        "side": side,
        "seconds": took,
        "us/pixel": 1e6 * took / side**2,
        "propagated": "" if handed_on is None else 1e6 * handed_on / side**2,
        "GFLOP/s": flops / took / 1e9,
        "MiB": peak_memory(lambda: step(*arguments), device),
    }


def in_one_dtype(
    options: argparse.Namespace, dtype: torch.dtype, channels: tuple[int, int], device: torch.device
) -> list[dict[str, object]]:
    """The rows of every peer; none before all their numbers are right."""
    rows: list[dict[str, object]] = []
    small = images(64, channels, dtype, device)
    for name, reason in refusals(*small, options.window).items():
        if name != "reference" and reason is not None:
            print(f"{name}: {reason}")
    exact = backend("reference", options.window)(*(x.double() for x in small))
    errors = {
        name: largest_error(name, make(), small, exact, options.window)
        for name, make in peers(64, options.window, device, small).items()
    }
    # Below float32 the reference is no measure: it rounds logits and weights to the dtype.
    rounded = torch.finfo(dtype).eps * exact.abs().max().item()
    allowed = max(4 * errors["reference"], 1e-5) if dtype == torch.float32 else 2 * rounded
    wrong = {name: error for name, error in errors.items() if error > allowed and name != "reference"}
    if wrong:
        raise SystemExit(f"wrong numbers, no times: {wrong} (allowed {allowed:.1e})")
    per_pixel: dict[str, float] = {}
    for side in map(int, options.sides.split(",")):
        arguments = images(side, channels, dtype, device)
        slow = {
            name
            for name, took in per_pixel.items()
            if took == float("inf") or (name not in OURS and took * side**2 > options.longest)
        }
        if slow:
            print(f"too large or more than {options.longest:g} s at side {side}: {', '.join(sorted(slow))}")
        torch.compiler.reset()  # FlexAttention's limit of compilations is one of the process
        for name, make in peers(side, options.window, device, arguments, slow).items():
            try:
                row = measure(name, make(), arguments, options.window, device) | {"error": errors[name]}
            except torch.OutOfMemoryError as error:
                print(f"{name} at side {side}: {str(error).splitlines()[0]}")
                per_pixel[name] = float("inf")
                continue
            per_pixel[name] = row["seconds"] / side**2
            tell(f"{name}, {dtype}, side {side}: {row['seconds']:.4g} s")
            if "," in options.dtype:
                row["backend"] = f"{name}, {str(dtype).removeprefix('torch.')}"
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sides", default="64,128,256")
    parser.add_argument("--window", type=int, default=45)
    parser.add_argument("--channels", default="64,128", help="of queries and keys, and of values")
    parser.add_argument("--dtype", default="float32", help="one, or several to compare")
    parser.add_argument("--instructions", choices=VARIANTS, help="of the C++ kernel; by default the best")
    parser.add_argument("--longest", type=float, default=60, help="seconds that a step of a peer may take")
    parser.add_argument("--out", type=Path, help="folder for operator.jsonl and operator.png")
    options = parser.parse_args()
    device = torch.device(options.device)
    for name in list(VARIANTS):
        if options.instructions not in (None, name):
            del VARIANTS[name]  # nothing has been loaded yet
    first, second = (int(c) for c in options.channels.split(","))
    rows: list[dict[str, object]] = []
    with torch.no_grad():
        for name in options.dtype.split(","):
            rows += in_one_dtype(options, getattr(torch, name), (first, second), device)
    for side in dict.fromkeys(row["side"] for row in rows):
        fastest = min(row["seconds"] for row in rows if row["side"] == side)
        for row in rows:
            if row["side"] == side:
                row["times fastest"] = row["seconds"] / fastest
    about = f"window {options.window}, channels {options.channels}, {options.dtype}"
    show(f"One step of the non-local operation: {about}, {device}", rows)
    if options.out:
        write(options.out / "operator.jsonl", rows, device, about)
        plot(options.out / "operator.png", rows, "backend", "side")


if __name__ == "__main__":
    main()
