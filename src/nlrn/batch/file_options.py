"""The options of a batch that are about files."""

from __future__ import annotations

from dataclasses import dataclass

from ..files.image import result_format
from ..files.pages import Ranges
from ..restoration import AnySigma
from ..restoration.stack import Per


@dataclass(frozen=True)
class FileOptions:
    """The options of a batch that are about files and not about the restorer.

    Args:
        sigma: noise level in 8-bit grey levels, `"auto"` for white noise, or `None` where nlrn chooses; from Python
            also of channels or of pixels.
        quality: of JPEG and lossy WebP files.
        overwrite: whether existing outputs are replaced.
        pages: numbers of the pages that are restored, by default all.
        estimate: whether the noise is estimated for a stack as a whole or for each page.
        format: of results, by default that of their inputs.
        keep_time: whether a result has the time of the last change of its input.
    """

    sigma: AnySigma | None
    quality: int
    overwrite: bool
    pages: Ranges | None = None
    estimate: Per = "stack"
    format: str | None = None
    keep_time: bool = False

    def result_format(self, format_: str) -> str:
        """The format of the result of an image of a format, where no name says another."""
        return self.format or result_format(format_)
