"""`nlrn restore`."""

from __future__ import annotations

from . import options, parsing
from .enlargement import parse_enlargement
from .shared import Shared, make_restorer, restore_all, with_shared


@with_shared
def restore(
    shared: Shared,
    scale: options.Scale = None,
    size: options.SizeText = None,
    fit: options.FitText = None,
    estimate: options.Estimate = "stack",
    strength: options.StrengthText = "1",
) -> None:
    """Measure what pictures need, then denoise or dejpeg them.

    Noise and compression are measured, and a note on each result says what was found and done. Pictures without either
    stay as they are. --scale, --size or --fit enlarge them last. Results are named STEM-restored.EXT. Originals are
    never modified.
    """
    enlarged = parse_enlargement(scale, size, fit)
    restore_all(
        shared,
        lambda: make_restorer(shared, "restore", enlarged=enlarged, strength=strength),
        "-restored" + ("" if enlarged is None else enlarged.suffix),
        estimate=parsing.parse_estimate(estimate),
    )
