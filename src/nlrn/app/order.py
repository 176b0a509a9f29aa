"""An order: what is to be done to an image, read from the fields of a request."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from ..files.image import FORMAT_NAMES
from ..restoration import Task
from ..restoration.enlargement import LARGEST
from ..restoration.options import Size, read_size
from ..restoration.purpose import Purpose
from ..restoration.strength import Strength
from .limits import Refused

LARGER = ("scale", "size", "fit")
FIELDS = ("model", "sigma", "for", "strength", *LARGER, "steps", "format", "quality", "region")
# The fields that not every task has.
OWN: dict[Task, tuple[str, ...]] = {
    "restore": ("for", "strength", *LARGER),
    "denoise": ("model", "sigma", "for", "strength"),
    "dejpeg": ("model", "strength"),
    "upscale": ("model", *LARGER),
}
MAX_QUALITY = 100


@dataclass(frozen=True)
class Region:
    """A rectangle of the picture as viewers show it, in pixels from its top left."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Order:
    """The work to be done on an image.

    Args:
        task: as `Restorer` has it.
        model: a name of the server's table, or `None` for the default.
        sigma: noise level in 8-bit grey levels, `"auto"` for white noise, or `None` where nlrn chooses.
        strength: as `Restorer` has it.
        scale, size, fit: as `Restorer` has them, exactly one for `"upscale"` and at most one for `"restore"`.
        steps: recurrent steps, or `None` for all.
        format: of the result, or `None` for the input's.
        quality: of JPEG and lossy WebP.
        region: the part that is wanted, or `None` for the whole.
        purpose: as `Restorer` has it.
    """

    task: Task
    model: str | None = None
    sigma: float | Literal["auto"] | None = None
    strength: Strength = 1.0
    scale: float | None = None
    size: Size | None = None
    fit: tuple[int, int] | None = None
    steps: int | None = None
    format: str | None = None
    quality: int = 95
    region: Region | None = None
    purpose: Purpose | None = None


def read_order(task: Task, fields: Mapping[str, str], models: Collection[str]) -> Order:
    """The order of a request's fields; an empty field counts as missing.

    Raises:
        Refused: 422, a field that is unknown, not for the task, or out of its range.
    """
    given = {name: value.strip() for name, value in fields.items() if value.strip()}
    allowed = _fields_of(task)
    for name in given:
        if name not in allowed:
            raise _bad("option", ", ".join(allowed), name, f"is not an option of {task}")
    model = given.get("model")
    if model is not None and model not in models:
        raise _bad("model", ", ".join(models), model, "is not a model of this server")
    format_ = given.get("format")
    if format_ is not None and format_.lower() not in FORMAT_NAMES:
        raise _bad("format", ", ".join(FORMAT_NAMES), format_, "is not a format of images")
    return Order(
        task=task,
        model=model,
        sigma=_sigma(given.get("sigma")),
        purpose=_purpose(given.get("for")),
        strength=_strength(given.get("strength", "1")),
        **_enlargement(
            {"scale": "2", **given} if task == "upscale" and not set(LARGER) & set(given) else given
        ),
        steps=_whole("steps", given, 1, 1000),
        format=None if format_ is None else FORMAT_NAMES[format_.lower()],
        quality=_whole("quality", given, 1, MAX_QUALITY) or 95,
        region=read_region(given.get("region")),
    )


def _fields_of(task: Task) -> list[str]:
    special = {name for names in OWN.values() for name in names}
    return [name for name in FIELDS if name not in special or name in OWN[task]]


def _bad(name: str, expected: str, got: str, reason: str) -> Refused:
    shown = got if len(got) <= 80 else f"{got[:80]}..."
    return Refused(422, f"{name} {shown!r} {reason}", expected=expected, got=shown)


def _number(text: str) -> float:
    """NaN for what is no number."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(name: str, given: Mapping[str, str], low: int, high: int) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and low <= int(text) <= high):
        raise _bad(name, f"a whole number from {low} to {high}", text, "is out of range")
    return int(text)


def _sigma(text: str | None) -> float | Literal["auto"] | None:
    if text is None or text == "auto":
        return "auto" if text else None
    value = _number(text)
    if not 0 <= value <= 255:
        raise _bad("sigma", "auto, or 8-bit grey levels from 0 to 255", text, "is no noise level")
    return value


def _purpose(text: str | None) -> Purpose | None:
    known: dict[str, Purpose] = {name: name for name in get_args(Purpose)}
    if text is not None and text not in known:
        raise _bad("for", ", ".join(known), text, "is no kind of picture")
    return None if text is None else known[text]


class _Enlargement(TypedDict, total=False):
    scale: float
    size: Size
    fit: tuple[int, int]


def _enlargement(given: Mapping[str, str]) -> _Enlargement:
    """The one of `scale`, `size` and `fit` that is given."""
    names = [name for name in LARGER if name in given]
    if len(names) > 1:
        got = " and ".join(names)
        raise Refused(422, f"{got} contradict each other", expected=f"one of {', '.join(LARGER)}", got=got)
    if "size" in given:
        size = read_size(given["size"])
        if size is None:
            raise _bad("size", "WIDTHxHEIGHT, such as 4096x2160, 4096x or x2160", given["size"], "is no size")
        return {"size": size}
    if "fit" in given:
        height, width = read_size(given["fit"]) or (None, None)
        if height is None or width is None:
            raise _bad("fit", "WIDTHxHEIGHT, such as 3840x2160", given["fit"], "is no box")
        return {"fit": (height, width)}
    if "scale" not in given:
        return {}
    value = _number(given["scale"])
    if not 1 < value <= LARGEST:
        raise _bad("scale", f"a number above 1 and at most {LARGEST}", given["scale"], "is out of range")
    return {"scale": value}


def _strength(text: str) -> Strength:
    values = [_number(part) for part in text.split(",")]
    if len(values) > 2 or not all(0 <= value <= 1 for value in values):
        raise _bad("strength", "a number from 0 to 1, or two such as 0.5,1", text, "is no strength")
    return values[0] if len(values) == 1 else (values[0], values[1])


def read_region(text: str | None) -> Region | None:
    """The rectangle of `x,y,width,height`.

    Raises:
        Refused: 422, no rectangle, or an empty one.
    """
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(p.isascii() and p.isdigit() and len(p) <= 9 for p in parts):
        raise _bad("region", "x,y,width,height in pixels", text, "is no rectangle")
    x, y, width, height = map(int, parts)
    if not width or not height:
        raise _bad("region", "x,y,width,height with a width and a height", text, "is empty")
    return Region(x, y, width, height)


def read_range(text: str | None) -> tuple[float, float] | None:
    """The values of black and white from `0,4095`.

    Raises:
        Refused: 422, no two finite numbers that rise.
    """
    if not text:
        return None
    ends = [_number(part) for part in text.split(",")]
    if len(ends) != 2 or not (math.isfinite(ends[0]) and math.isfinite(ends[1]) and ends[0] < ends[1]):
        raise _bad("range", "the values of black and white, such as 0,4095", text, "is no range")
    return ends[0], ends[1]
