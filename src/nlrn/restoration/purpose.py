"""The kind of a picture, as it is named by hand in place of what nlrn measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Purpose = Literal["photo", "scan", "screenshot", "measurement"]


@dataclass(frozen=True)
class Handling:
    """The handling of a kind of picture.

    Args:
        photo: whether noise is removed by the model for photographs; `None` where that follows from the noise.
        grain: whether that is the one which learned film grain, however weak the noise is.
        drawings: whether a drawing without noise stays as it was.
        guard: areas that keep their mean: flat ones of `"saturated"` colour, of `"any"` colour, or `"none"`.
        still: whether areas without noise, and what lies between them, stay as they were.
        from_data: whether the range of values follows from the data, whatever their type.
        dejpeg: whether compression is measured and removed.
        noisy: whether noise is removed without asking if a picture has any.
        note: a sentence for the user.
    """

    photo: bool | None = None
    grain: bool = False
    drawings: bool = True
    guard: Literal["saturated", "any", "none"] = "saturated"
    still: bool = False
    from_data: bool = False
    dejpeg: bool = True
    noisy: bool = False
    note: str | None = None


HANDLINGS: dict[Purpose | None, Handling] = {
    None: Handling(),
    "photo": Handling(
        photo=True,
        drawings=False,
        note="chosen by hand, for a photograph: its noise is removed by the model for photographs",
    ),
    "scan": Handling(
        photo=True,
        grain=True,
        drawings=False,
        noisy=True,
        note="chosen by hand, for a scan: its grain is removed by the model that learned grain",
    ),
    "screenshot": Handling(
        photo=False,
        guard="any",
        still=True,
        note="chosen by hand, for a screenshot: white noise is removed, flat areas keep their colours, and what has "
        "no noise stays as it was",
    ),
    "measurement": Handling(
        photo=False,
        drawings=False,
        guard="none",
        from_data=True,
        dejpeg=False,
        noisy=True,
        note="chosen by hand, for a measurement: white noise is removed, whatever the picture looks like",
    ),
}
