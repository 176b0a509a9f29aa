"""The enlargement that `--scale`, `--size` or `--fit` asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from . import parsing
from .errors import CliError

if TYPE_CHECKING:
    from ..restoration.options import Size


class Wanted(TypedDict, total=False):
    """An enlargement as an argument of `Restorer`."""

    scale: float
    size: Size
    fit: tuple[int, int]


@dataclass(frozen=True)
class Enlarged:
    """An enlargement, and the end that the names of its results have."""

    options: Wanted
    suffix: str


def parse_enlargement(scale: float | None, size: str | None, fit: str | None) -> Enlarged | None:
    """The enlargement of `--scale`, `--size` or `--fit`; `None` where none is given.

    Raises:
        CliError: several of the three, or one that no result can have.
    """
    given = {"--scale": scale, "--size": size, "--fit": fit}
    names = [name for name, value in given.items() if value is not None]
    if not names:
        return None
    if len(names) > 1:
        raise CliError(f"{' and '.join(names)} contradict each other")
    from ..restoration.enlargement import Enlargement

    wanted: Wanted
    if size is not None:
        height, width = parsing.parse_size("--size", size)
        wanted = {"size": (height, width)}
        suffix = f"-{width}w" if height is None else f"-{height}h" if width is None else f"-{width}x{height}"
    elif fit is not None:
        height, width = parsing.parse_size("--fit", fit)
        if height is None or width is None:
            raise CliError(f"--fit must be WIDTHxHEIGHT, such as 3840x2160, got {fit!r}")
        wanted, suffix = {"fit": (height, width)}, f"-fit{width}x{height}"
    else:
        assert scale is not None
        factor = int(scale) if float(scale).is_integer() else scale
        wanted, suffix = {"scale": factor}, f"-x{factor}"
    try:
        Enlargement(**wanted)
    except ValueError as error:
        raise CliError(f"--{error}") from error
    return Enlarged(wanted, suffix)
