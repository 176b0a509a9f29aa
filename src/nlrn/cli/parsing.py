"""Texts of options, read into the values that the library takes."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, cast

from .errors import CliError

if TYPE_CHECKING:
    from ..files.pages import Ranges
    from ..restoration.options import Size
    from ..restoration.stack import Per
    from ..restoration.strength import Strength

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_data_range(text: str | None) -> float | tuple[float, float] | None:
    """The value of white from `4095`, or those of black and white from `100,4095`.

    Raises:
        CliError: other text, not positive, not rising, NaN or infinite.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2):
        raise CliError(f"--data-range must be a number such as 4095, or two such as 100,4095, got {text!r}")
    low, high = (0.0, values[0]) if len(values) == 1 else values
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        kind = "positive" if len(values) == 1 else "two rising numbers"
        raise CliError(f"--data-range must be {kind}, got {text}")
    return high if len(values) == 1 else (low, high)


def parse_size(name: str, text: str) -> Size:
    """Height and width from `4096x2160`, `4096x` or `x2160`.

    Raises:
        CliError: anything else.
    """
    from ..restoration.options import read_size

    size = read_size(text)
    if size is None:
        examples = "4096x2160, 4096x or x2160" if name == "--size" else "3840x2160"
        raise CliError(f"{name} must be WIDTHxHEIGHT, such as {examples}, got {text!r}")
    return size


def parse_hot_pixels(text: str | None) -> bool | Literal["stack"]:
    """The option `hot_pixels` of a text: `False` for none, `True` for `frame`.

    Raises:
        CliError: neither `frame` nor `stack`.
    """
    if text not in (None, "frame", "stack"):
        raise CliError(f"--hot-pixels must be frame or stack, got {text!r}")
    return "stack" if text == "stack" else text is not None


def parse_white(text: str | None) -> float | None:
    """The value of white for commands that take no other range.

    Raises:
        CliError: as `parse_data_range`, and for two numbers.
    """
    white = parse_data_range(text)
    if isinstance(white, tuple):
        raise CliError(f"--data-range must be one number here, got {text}")
    return white


def parse_pages(text: str | None) -> Ranges | None:
    """Numbers of pages from `1-10,20`.

    Raises:
        CliError: anything else, or a 0.
    """
    if text is None:
        return None
    from ..files.pages import parse_ranges

    try:
        return parse_ranges(text)
    except ValueError as error:
        raise CliError(f"--{error}") from error


def parse_format(text: str | None) -> str | None:
    """The name of a format of results.

    Raises:
        CliError: of none.
    """
    from ..files.image import FORMAT_NAMES

    if text is not None and text.lower() not in FORMAT_NAMES:
        raise CliError(f"--format must be one of {', '.join(FORMAT_NAMES)}, got {text!r}")
    return None if text is None else FORMAT_NAMES[text.lower()]


def parse_estimate(text: str) -> Per:
    """`stack` or `page`.

    Raises:
        CliError: anything else.
    """
    if text not in ("stack", "page"):
        raise CliError(f"--estimate must be stack or page, got {text!r}")
    return cast("Per", text)


def parse_sigma(text: str) -> float | Literal["auto"]:
    """`auto`, or a noise level in 8-bit grey levels.

    Raises:
        CliError: no number, negative, NaN or beyond 255.
    """
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        raise CliError(f"--sigma must be a number of grey levels or auto, got {text!r}") from None
    if not 0 <= value <= 255:
        raise CliError(f"--sigma must lie between 0 and 255 grey levels, got {text}")
    return value


def parse_strength(text: str) -> Strength:
    """A share such as `0.7`, or those of luma and colour such as `0.5,1`.

    Raises:
        CliError: other text; `Restorer` refuses numbers beyond 0..1.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        return values[0]
    if len(values) == 2:
        return values[0], values[1]
    raise CliError(f"--strength must be a number from 0 to 1, or two such as 0.5,1, got {text!r}")


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Place and number of the parts from `0/4`.

    Raises:
        CliError: anything else, or a place beyond the number.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise CliError(f"--shard must be I/N with 0 <= I < N, such as 0/4, got {text!r}")
    return int(match[1]), int(match[2])


def parse_memory(text: str | None) -> int | None:
    """Bytes from `4G`, `512M`, `1.5GiB`, `100000000`.

    Raises:
        CliError: anything else, or nothing.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or not float(match[1]):
        raise CliError(f"--max-memory must be a size such as 4G or 512M, got {text!r}")
    return int(float(match[1]) * UNITS[match[2].upper()])


def parse_window(text: str | None) -> int | Literal["default"] | None:
    """The `window_size` of `load_model` from `45`, `none` or nothing.

    Raises:
        CliError: an even or impossible number.
    """
    if text is None:
        return "default"
    if text.lower() == "none":
        return None
    if not text.isascii() or not text.isdigit() or int(text) % 2 == 0:
        raise CliError(f"--window must be odd and positive, or none, got {text!r}")
    return int(text)
