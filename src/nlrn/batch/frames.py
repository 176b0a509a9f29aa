"""Frames of a video: images of standard input, each restored to standard output before the next one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Iterator

from ..files.codecs import decode
from ..files.image import Image, ImageError
from ..files.images import encode_image, losses
from ..restoration import Restorer
from ..restoration.report import PageReports
from ..restoration.stream import restored_stream
from .events import Restored
from .file_options import FileOptions
from .job import Job


def frames_after(contents: Iterator[bytes] | None, job: Job, options: FileOptions) -> Iterator[bytes] | None:
    """The images that follow the first one of standard input; `None` where it has one.

    Raises:
        ValueError: a stream that is to go into a file, in another format, or in part.
    """
    if contents is None:
        return None
    try:
        second = next(contents, None)
    except ImageError as error:  # ends the stream after its first image
        frames: Iterator[bytes] = _failing(error)
    else:
        if second is None:
            return None
        frames = itertools.chain([second], contents)
    if job.target != "-":
        raise ValueError(
            f"standard input has several images: their results go to -o -, and not to {job.target}"
        )
    if options.pages is not None:
        raise ValueError("pages are chosen of files, and standard input has several images")
    if options.format not in (None, "PNG", "JPEG"):
        raise ValueError(f"a stream of images is written as PNG or JPEG, and not as {options.format}")
    return frames


def _failing(error: ImageError) -> Iterator[bytes]:
    raise error
    yield


def restore_frames(
    job: Job, first: Image, frames: Iterator[bytes], restorer: Restorer, options: FileOptions
) -> Restored:
    """Restores images of standard input, each written to standard output before the next one is restored."""
    reports, pixels = PageReports(), 0

    def decoded() -> Iterator[Image]:
        yield first
        for number, content in enumerate(frames, 2):
            frame = decode(content, f"frame {number} of standard input")
            if (frame.pixels.shape, frame.pixels.dtype) != (first.pixels.shape, first.pixels.dtype):
                one, other = (f"{x.pixels.dtype} of shape {x.pixels.shape}" for x in (frame, first))
                raise ValueError(f"frame {number} of standard input is {one}, and the first one is {other}")
            yield frame

    name = "JPEG" if options.format == "JPEG" else "PNG"
    for image, report in restored_stream(restorer, decoded(), options.sigma, estimate=options.estimate):
        sys.stdout.buffer.write(encode_image(image, name, quality=options.quality))
        sys.stdout.buffer.flush()
        notes = (*image.notes, *report.notes, *losses(image, name))
        reports.add(dataclasses.replace(report, notes=notes))
        pixels += math.prod(first.pixels.shape[:2])
    count = pixels // math.prod(first.pixels.shape[:2])
    return Restored(job, reports.joined(), count, pixels)
