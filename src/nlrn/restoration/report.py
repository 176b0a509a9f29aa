"""The account of a restoration."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from dataclasses import dataclass

from .value_range import ValueRange


@dataclass(frozen=True)
class Report:
    """The account of a restoration.

    Args:
        model: name of the model, or its file or class.
        sigma: noise level in units of [0, 1] of the working range, for files of the type's range; the mean over a
            batch and over levels that differ; `None` for a model that ignores it.
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


class PageReports:
    """The reports on the pages of a stack, of which only what differs is kept."""

    def __init__(self) -> None:
        self._models, self._estimated, self._seconds = Counter[str](), False, 0.0
        self._levels, self._total, self._count, self._silent = 0, 0.0, 0, False
        self._notes, self._warnings = _Sentences(), _Sentences()

    def add(self, report: Report) -> None:
        """Takes the report on the next page."""
        self._count += 1
        self._models[report.model] += 1
        self._estimated |= report.estimated
        self._seconds += report.seconds
        if report.sigma is not None:
            if report.estimated and not report.sigma:
                self._silent = True  # a constant page, which tells nothing of the others
            else:
                self._levels, self._total = self._levels + 1, self._total + report.sigma
        for note in report.notes:
            self._notes.add(note, self._count)
        for warning in report.warnings:
            self._warnings.add(warning, self._count)

    def joined(self) -> Report:
        """One report on all pages: the noise level is the mean of those with noise, and sentences are there once."""
        return Report(
            ", ".join(self._models),
            self._total / self._levels if self._levels else 0.0 if self._silent else None,
            self._estimated,
            self._notes.joined(self._count),
            self._warnings.joined(self._count),
            self._seconds,
        )


class _Sentences:
    """Sentences on pages; those that differ in numbers alone count as one."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, int]] = {}
        self._pages, self._varied = Counter[str](), set[str]()

    def add(self, sentence: str, page: int) -> None:
        """Takes a sentence on a page, counted from 1."""
        kind = re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "0", sentence)
        first, _ = self._first.setdefault(kind, (sentence, page))
        self._pages[kind] += 1
        if sentence != first:
            self._varied.add(kind)

    def joined(self, count: int) -> tuple[str, ...]:
        """Each kind of sentence once, with the pages that it is about where it is not about all."""
        found = []
        for kind, (sentence, page) in self._first.items():
            others = self._pages[kind] - 1
            if others + 1 < count or kind in self._varied:
                like = " like it" if kind in self._varied else ""
                sentence += f" (page {page}" + (f" and {others} more{like})" if others else ")")
            found.append(sentence)
        return tuple(found)
