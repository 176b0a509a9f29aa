"""The account of a restoration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .value_range import ValueRange


@dataclass(frozen=True)
class Report:
    """The account of a restoration.

    Args:
        model: name of the model, or its file or class.
        sigma: noise level in units of [0, 1] of the working range, for files of the type's range; the mean over a
            batch; `None` for a model that ignores it.
        estimated: whether sigma was estimated from the image.
        notes: facts that may be of use to the user, in full sentences.
        warnings: cautions for the user, in full sentences.
        seconds: time that the restoration took.
    """

    model: str
    sigma: float | None
    estimated: bool
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def on(self, values: ValueRange, white: float | None) -> Report:
        """The account of an image restored on a range: its note, and the noise level in units of `white` if given."""
        notes = self.notes if values.note is None else (values.note, *self.notes)
        if self.sigma is None or white is None:
            return dataclasses.replace(self, notes=notes)
        return dataclasses.replace(self, notes=notes, sigma=self.sigma * values.span / white)


def joined(reports: list[Report]) -> Report:
    """The report on a batch of the reports on its images; the noise level is their mean."""
    levels = [report.sigma for report in reports if report.sigma is not None]
    return dataclasses.replace(
        reports[0],
        sigma=sum(levels) / len(levels) if levels else None,
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        warnings=tuple(dict.fromkeys(w for report in reports for w in report.warnings)),
        seconds=sum(report.seconds for report in reports),
    )
