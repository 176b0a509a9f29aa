"""Stacks: pages that belong together are restored alike, on one range of values and with one estimate of their noise.

Pages belong together where their source says so: those of one channel, size and type. A page is asked for up to four
times (for hot pixels, for a sample of its values, for an estimate of its noise, and to be restored) and never kept.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from math import prod
from typing import Literal, Protocol, TypeVar

import numpy as np
from torch import Tensor

from ..files.image import Image
from ..inference import Progress, no_progress, part_of
from .combined import NO_MODEL
from .hot_pixels import check_faults
from .kinds import Kind
from .levels import AnySigma, sigma_of_plane, strongest_of
from .options import Options
from .plan import Plan
from .report import PageReports, Report
from .restorer import Restorer
from .shared import ALONE, Shared, common_estimate, common_faults, common_plan, common_range
from .unit_image import UnitImage
from .value_range import Sigma, level_of

Per = Literal["stack", "page"]
Page = TypeVar("Page", covariant=True)


class Stack(Protocol[Page]):
    """Pages of one kind; those of the same group belong together."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Page: ...
    def group(self, index: int) -> Hashable: ...


class RestoredPages:
    """The pages of a file, each restored when it is asked for; once only.

    Args:
        restorer: restores every page.
        pages: as `nlrn.files.pages.read_pages` opens them.
        sigma: noise level in 8-bit grey levels, `"auto"`, or `None` where nlrn chooses; also of channels or of pixels,
            the same for all pages.
        progress: called with the fraction done.
        estimate: `"stack"` for one estimate of the noise of all pages that belong together, `"page"` for one a page.

    Raises:
        ValueError: another `estimate`; when a page is asked for, as `Restorer.image`.
    """

    def __init__(
        self,
        restorer: Restorer,
        pages: Stack[Image],
        sigma: AnySigma | None = None,
        progress: Progress | None = None,
        *,
        estimate: Per = "stack",
    ) -> None:
        self._restorer, self._stack, self._sigma = restorer, pages, sigma
        self._reports = PageReports()
        self.pixels = 0  # of the pages so far, as they were read
        self.unchanged = True  # all pages so far
        estimated = is_estimated(restorer, sigma, estimate)
        self._pages = _each(restorer, pages, self._restore, self._level_of, estimated, progress)

    def __iter__(self) -> Iterator[Image]:
        for image, report in self._pages:
            self._reports.add(dataclasses.replace(report, notes=(*image.notes, *report.notes)))
            yield image

    def report(self) -> Report:
        """The report on the pages so far."""
        return self._reports.joined()

    def _restore(self, index: int, progress: Progress, shared: Shared) -> tuple[Image, Report]:
        page = self._stack[index]
        self.pixels += prod(page.pixels.shape[:2])
        restored, report = self._restorer.image(page, self._sigma, progress, shared)
        self.unchanged = self.unchanged and np.array_equal(page.pixels, restored.pixels)
        return restored, report

    def _level_of(self, color: Tensor) -> Sigma:
        strongest = strongest_of(self._sigma)
        return level_of(color.dtype, strongest, self._restorer.options.data_range, grey_levels=True)


def restore_stack(
    restorer: Restorer,
    pixels: np.ndarray,
    axes: str,
    sigma: AnySigma | None = None,
    progress: Progress | None = None,
    *,
    estimate: Per = "stack",
) -> tuple[np.ndarray, PageReports]:
    """Restores every plane of an array.

    Args:
        restorer: restores every plane.
        pixels: of any integer or floating-point type, perhaps masked.
        axes: a letter for each axis, as tifffile has them: Y and X are those of a plane, S (or C, as the last axis) its
            colors, C elsewhere channels that are restored apart, all others such as Z and T those of a stack.
        sigma: in the units of the array; also of channels or of pixels, the same for all planes, or with the axes of
            the array, each as long as there or 1.
        progress: called with the fraction done.
        estimate: as for `RestoredPages`.

    Returns:
        The array, and the reports on its planes.

    Raises:
        ValueError: axes that do not fit, and as `Restorer.array`.
    """
    planes = ArrayStack(pixels, axes)

    def restore(index: int, part: Progress, shared: Shared) -> tuple[np.ndarray, Report]:
        return restorer.array(planes[index], planes.sigma(sigma, index), part, shared=shared)

    def level(color: Tensor) -> Sigma:
        return level_of(color.dtype, strongest_of(sigma), restorer.options.data_range, grey_levels=False)

    estimated = is_estimated(restorer, sigma, estimate)
    return planes.joined(_each(restorer, planes, restore, level, estimated, progress))


def forecast_pages(
    restorer: Restorer, pages: Stack[Image], sigma: Sigma | None, estimate: Per
) -> tuple[str, Sigma | None, float]:
    """`Restorer.forecast` of all pages of a file.

    Of those that belong together the first stands for all, with the steps of `"restore"` that they have in common; with
    an estimate of each page every page is looked at.
    """

    def level(color: Tensor) -> Sigma:
        return level_of(color.dtype, sigma, restorer.options.data_range, grey_levels=True)

    plan = None if restorer.combined is None else restorer.combined.plan
    estimated = plan is not None and is_estimated(restorer, sigma, estimate)
    groups = groups_of(pages)
    for indices in groups.values():
        check_faults(restorer.options, len(indices))
    shared: dict[Hashable, Shared] = {}
    if estimated:
        shared = shared_by_group(restorer.options, pages, level, estimated, plan)
    names, level_used, seconds = dict[str, None](), None, 0.0
    for group, indices in groups.items():
        each = plan is not None and not estimated
        for index in indices if each else indices[:1]:
            name, level_used, took = restorer.forecast(pages[index], sigma, shared.get(group, ALONE).plan)
            names.update(dict.fromkeys(name.split(", ")))
            seconds += took if each else took * len(indices)
    if len(names) > 1:
        names.pop(NO_MODEL, None)
    return ", ".join(names), level_used, seconds


class ArrayStack:
    """The planes of an array.

    Args:
        pixels: the array.
        axes: as `restore_stack` has them.

    Raises:
        ValueError: axes that do not fit the array, or no pixels.
    """

    def __init__(self, pixels: np.ndarray, axes: str) -> None:
        if not isinstance(axes, str) or not re.fullmatch("[A-Z]*", axes) or len(set(axes)) != len(axes):
            raise ValueError(f"axes must be different capital letters, such as 'ZYX', got {axes!r}")
        if len(axes) != pixels.ndim:
            raise ValueError(f"axes must name {pixels.ndim} axes of an array {pixels.shape}, got {axes!r}")
        if "Y" not in axes or "X" not in axes:
            raise ValueError(f"axes must have Y and X, the rows and columns of a plane, got {axes!r}")
        if 0 in pixels.shape:
            raise ValueError(f"an array must not be empty, got shape {pixels.shape}")
        color = "S" if "S" in axes else "C" if axes.endswith("C") else ""
        outer = [axes.index(letter) for letter in axes if letter not in f"YX{color}"]
        self._order = (*outer, *(axes.index(letter) for letter in f"YX{color}"))
        self._whole, self._moved = pixels.shape, pixels.transpose(self._order)
        self._shape = self._moved.shape[: len(outer)]
        letters = [axes[place] for place in outer]
        self._channel = letters.index("C") if "C" in letters else None

    def __len__(self) -> int:
        return prod(self._shape)

    def __getitem__(self, index: int) -> np.ndarray:
        plane: np.ndarray = self._moved[np.unravel_index(index, self._shape)] if self._shape else self._moved
        return plane

    def sigma(self, sigma: AnySigma | None, index: int) -> AnySigma | None:
        """The noise levels of a plane."""
        place = tuple(int(i) for i in np.unravel_index(index, self._shape)) if self._shape else ()
        return sigma_of_plane(sigma, self._whole, self._order, place)

    def group(self, index: int) -> Hashable:
        """The channel of a plane."""
        return None if self._channel is None else int(np.unravel_index(index, self._shape)[self._channel])

    def joined(self, planes: Iterator[tuple[np.ndarray, Report]]) -> tuple[np.ndarray, PageReports]:
        """An array with the axes of this one, of its planes after a restoration, and the reports on them."""
        reports = PageReports()
        result: np.ndarray | None = None
        for index, (plane, report) in enumerate(planes):
            reports.add(report)
            if result is None:
                empty = np.ma.empty if isinstance(plane, np.ma.MaskedArray) else np.empty
                result = empty((len(self), *plane.shape), plane.dtype)
            result[index] = plane
        assert result is not None
        result = result.reshape(*self._shape, *result.shape[1:])
        if isinstance(self._moved, np.ma.MaskedArray) and isinstance(result, np.ma.MaskedArray):
            result.fill_value = self._moved.fill_value
        return result.transpose(np.argsort(self._order)), reports


def check_estimate(estimate: Per) -> None:
    """Raises `ValueError` for what is neither `"stack"` nor `"page"`."""
    if estimate not in ("stack", "page"):
        raise ValueError(f"estimate must be 'stack' or 'page', got {estimate!r}")


def is_estimated(restorer: Restorer, sigma: AnySigma | None, estimate: Per) -> bool:
    """True where the noise of the stack as a whole is to be estimated."""
    check_estimate(estimate)
    return (
        estimate == "stack"
        and restorer.options.task in ("denoise", "restore")
        and (sigma is None or isinstance(sigma, str))
    )


def _each(
    restorer: Restorer,
    stack: Stack[Kind],
    restore: Callable[[int, Progress, Shared], tuple[Kind, Report]],
    level_of: Callable[[Tensor], Sigma],
    estimated: bool,
    progress: Progress | None,
) -> Iterator[tuple[Kind, Report]]:
    """Restores page after page, each with what its group has in common."""
    plan = None if restorer.combined is None else restorer.combined.plan
    shared = shared_by_group(restorer.options, stack, level_of, estimated, plan)
    for index in range(len(stack)):
        part = part_of(progress or no_progress, index, len(stack))
        yield restore(index, part, shared[stack.group(index)])


def groups_of(stack: Stack[Kind]) -> dict[Hashable, list[int]]:
    """The pages that belong together, by their groups."""
    groups: dict[Hashable, list[int]] = {}
    for index in range(len(stack)):
        groups.setdefault(stack.group(index), []).append(index)
    return groups


def shared_by_group(
    options: Options,
    stack: Stack[Kind],
    level_of: Callable[[Tensor], Sigma],
    estimated: bool,
    plan: Callable[[UnitImage], Plan] | None = None,
) -> dict[Hashable, Shared]:
    """The properties that the pages of each group of a stack have in common.

    Args:
        options: of the restorer.
        stack: the pages.
        level_of: noise level in the units of a page's values.
        estimated: whether the noise of a group as a whole is estimated.
        plan: the steps for an image, in place of its noise.
    """
    handling = options.handling

    def shared_by(indices: Sequence[int]) -> Shared:
        faults = common_faults(stack.__getitem__, indices, options)
        if len(indices) == 1 or options.noise is not None:  # a sensor's noise is that of each page
            return Shared(faults=faults)
        values = common_range(stack.__getitem__, indices, options.data_range, level_of, handling.from_data)
        if values is None or not estimated:
            return Shared(values, faults=faults)
        if plan is not None:
            return Shared(values, plan=common_plan(stack.__getitem__, indices, values, plan))
        estimate = common_estimate(stack.__getitem__, indices, values, drawings=handling.drawings)
        return Shared(values, estimate, faults=faults)

    return {group: shared_by(indices) for group, indices in groups_of(stack).items()}
