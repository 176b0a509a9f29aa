"""Enlargement: the size of a result, the scales of the network that lead to it, and what becomes as large beside luma.

The network knows a few scales. Any other factor is its next larger one, and bicubic down from there; beyond the largest
it is applied twice.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from torch import Tensor

from ..files import exif
from ..files.image import Image
from ..files.microscopy import enlarged
from ..inference import Progress
from ..ops.resize import bicubic_resize
from .luma import recolor, split
from .options import Size, Task

# The scales of the network, once or twice, by how much larger they make an image together.
PASSES = ((2,), (3,), (4,), (3, 2), (4, 2), (3, 3), (4, 3), (4, 4))
LARGEST = 16


@dataclass(frozen=True)
class Target:
    """The enlargement of one image.

    Args:
        height, width: of the result.
        scales: of the network, one after the other.
        exact: whether they lead to the result without being made smaller.
    """

    height: int
    width: int
    scales: tuple[int, ...]
    exact: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    @property
    def cost(self) -> int:
        """Pixels that the network computes for each pixel of the image."""
        return sum(math.prod(self.scales[: count + 1]) ** 2 for count in range(len(self.scales)))

    @property
    def notes(self) -> tuple[str, ...]:
        """A note on a network that is applied twice."""
        if len(self.scales) == 1:
            return ()
        down = "" if self.exact else ", then bicubic down"
        times = " and ".join(str(scale) for scale in self.scales)
        return (f"the network enlarges by 4 at most and is applied twice, by {times}{down}",)

    def resize(self, image: Tensor) -> Tensor:
        """`[B, C, height, width]`, bicubic."""
        return bicubic_resize(image, self.height, self.width)


@dataclass(frozen=True, eq=False)
class Begun:
    """An image on its way to a target.

    Args:
        target: its enlargement.
        luma: `[B, 1, H, W]`, the bicubic enlargement that the network restores first.
        chroma: `[B, 2, height, width]` of the result; `None` for a grey image.
    """

    target: Target
    luma: Tensor
    chroma: Tensor | None

    def finish(self, run: Callable[[Tensor, Progress], Tensor], progress: Progress) -> Tensor:
        """The result `[B, C, height, width]`; `run` restores luma at each of the scales."""
        luma, done = self.luma, 0
        for index, scale in enumerate(self.target.scales):
            image = _times(luma, scale) if index else luma
            share = math.prod(self.target.scales[: index + 1]) ** 2
            luma = run(image, _between(progress, done / self.target.cost, (done + share) / self.target.cost))
            done += share
        return recolor(self.target.resize(luma), self.chroma)


@dataclass(frozen=True)
class Enlargement:
    """The enlargement of any image: exactly one of a factor, a size and a box.

    Args:
        scale: how many times larger each side is, above 1 and up to 16. Sides are rounded up, as MATLAB's `imresize`
            does; a product within a millionth of a whole number is that number, so that 1.1 times 10 is 11.
        size: height and width. One of them may be `None`: it follows from the proportions of the image, to the nearest
            pixel. Both must have these proportions, to less than a pixel.
        fit: height and width of a box. The result is the largest with the image's proportions that lies within it.
        on_side: whether viewers turn the image by a quarter: size and box, and what errors say, are as they show it.

    Raises:
        ValueError: none of the three or several, or one that no result can have.
        TypeError: values that are no numbers.
    """

    scale: float | None = None
    size: Size | None = None
    fit: tuple[int, int] | None = None
    on_side: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("scale", "size", "fit") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of scale, size and fit must be given, got {' and '.join(given) or 'none'}"
            )
        if self.scale is not None:
            _check_scale(self.scale)
        else:
            name, sides, fewest = ("size", self.size, 1) if self.fit is None else ("fit", self.fit, 2)
            object.__setattr__(self, name, _whole(name, sides, fewest))

    def of(self, height: int, width: int) -> Target:
        """The enlargement of an image of this size.

        Raises:
            ValueError: a result that is not larger than the image or more than 16 times as large, or a size with other
                proportions than the image.
        """
        if self.on_side:
            target = dataclasses.replace(self, on_side=False).of(width, height)
            return dataclasses.replace(target, height=target.width, width=target.height)
        high, wide = self._size_of(height, width)
        if high < height or wide < width or (high, wide) == (height, width):
            raise ValueError(
                f"the result must be larger than the image, {width}x{height} (width x height), got {wide}x{high}"
            )
        for scales in PASSES:
            product = math.prod(scales)
            if product * height >= high and product * width >= wide:
                return Target(high, wide, scales, (product * height, product * width) == (high, wide))
        raise ValueError(
            f"the result must be at most {LARGEST} times as large as the image, {width}x{height} (width x height), "
            f"got {wide}x{high}"
        )

    def begin(self, image: Tensor) -> Begun:
        """The enlargement of `[B, C, H, W]`, C = 1 (luma as it is) or 3 (RGB), before the network.

        Raises:
            ValueError: as `of`.
        """
        target = self.of(*image.shape[2:])
        luma, chroma = split(image)
        large = None if chroma is None else target.resize(chroma)
        return Begun(target, _times(luma, target.scales[0]), large)

    def _size_of(self, height: int, width: int) -> tuple[int, int]:
        if self.scale is not None:
            high, wide = (math.ceil(round(float(self.scale) * length, 6)) for length in (height, width))
            return high, wide
        if self.fit is not None:
            high, wide = self.fit
            if high * width < wide * height:
                return high, _nearest(high * width, height)
            return _nearest(wide * height, width), wide
        assert self.size is not None
        match self.size:
            case (None, int(wide)):
                return _nearest(wide * height, width), wide
            case (int(high), None):
                return high, _nearest(high * width, height)
            case (int(high), int(wide)):
                if abs(high * width - wide * height) >= max(height, width):
                    raise ValueError(
                        f"the size {wide}x{high} has other proportions than the image, {width}x{height} "
                        f"(width x height); {wide}x{_nearest(wide * height, width)} has the same"
                    )
                return high, wide
        raise AssertionError(self.size)


def enlargement_for(
    task: Task, scale: float | None, size: Size | None, fit: tuple[int, int] | None
) -> Enlargement | None:
    """The enlargement of a task; none for those that keep the size, and for `"restore"` without one of the three.

    Raises:
        ValueError, TypeError: as `Enlargement`, and any of the three for another task.
    """
    if task == "upscale" or (task == "restore" and (scale, size, fit) != (None, None, None)):
        return Enlargement(scale, size, fit)
    for name, value in (("scale", scale), ("size", size), ("fit", fit)):
        if value is not None:
            raise ValueError(f"{name} is for upscale and restore, not for {task}, got {value!r}")
    return None


def is_turned(image: Image) -> bool:
    """True for an image of a file that viewers turn by a quarter."""
    return exif.parse(image.exif or b"").orientation >= 5


def describe(image: Image, before: Image) -> tuple[Image, tuple[str, ...]]:
    """The result with metadata of its new size, and notes on those that are left out.

    Args:
        image: the result, with the metadata of the image that it was made from.
        before: that image.
    """
    (height, width), (rows, columns) = image.pixels.shape[:2], before.pixels.shape[:2]
    lost = () if image.xmp is None else ("XMP data, which may say the old size, is left out",)
    image, notes = enlarged(image, (columns, rows))
    image = dataclasses.replace(image, exif=exif.resized(image.exif, width, height), xmp=None)
    return image, (*lost, *notes)


def _between(progress: Progress, start: float, end: float) -> Progress:
    """A progress from `start` to `end` of another one."""
    return lambda fraction: progress(start + (end - start) * fraction)


def _times(image: Tensor, scale: int) -> Tensor:
    return bicubic_resize(image, scale * image.shape[2], scale * image.shape[3])


def _nearest(numerator: int, denominator: int) -> int:
    """The whole number nearest to a fraction, but at least 1."""
    return max(1, (2 * numerator + denominator) // (2 * denominator))


def _check_scale(scale: float) -> None:
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"scale must be a number, got {scale!r}")
    if not 1 < scale <= LARGEST:  # nor NaN
        raise ValueError(f"scale must be above 1 and at most {LARGEST}, got {scale}")


def _whole(name: str, sides: Size | None, fewest: int) -> Size:
    """Height and width as integers, of which `fewest` must be given."""
    if not isinstance(sides, tuple | list) or len(sides) != 2:
        raise TypeError(f"{name} must be (height, width), got {sides!r}")
    try:
        high, wide = (None if side is None else operator.index(side) for side in sides)
    except TypeError:
        raise TypeError(f"{name} must be whole numbers of pixels, got {sides!r}") from None
    given = [side for side in (high, wide) if side is not None]
    if len(given) < fewest or min(given) < 1:
        raise ValueError(
            f"{name} must be {'one or two' if fewest == 1 else 'two'} positive numbers, got {sides!r}"
        )
    return high, wide
