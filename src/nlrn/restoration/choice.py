"""The choice of a model by the noise of an image, where nobody has made it."""

from __future__ import annotations

from torch import Tensor

from ..inference.noise_level import GRAINY, SMALLEST_SIDE, WHITE_COLOR, NoiseEstimate, estimate_noise

# From this whiteness on the noise of a colour picture is white. Of photographs of two cameras (PolyU) three quarters
# lie below 0.4; Set12 with white noise of sigma 3 lies above 0.8, and crops of CBSD68 with sigma 5 above 0.7.
WHITE = 0.6
# Weaker noise, in units of [0, 1], cannot be told from fine texture. Of 24 clean pictures of BSD400, and of crops of
# 128x128 of them, the noise of none is white in luma and colour, whatever its level.
CLEAR = 1.5 / 255

AS_IT_WAS = "drawing, text or screenshot without noise (of constant areas or a few levels): it stays as it was; sigma= restores it"


def noise_of(image: Tensor, hidden: Tensor | None = None, *, drawings: bool = True) -> NoiseEstimate | None:
    """The noise of an image; `None` where it is too small for an estimate. Arguments as `estimate_noise` has them."""
    if min(image.shape[2:]) < SMALLEST_SIDE:
        return None
    return estimate_noise(image, hidden, drawings=drawings)


def is_photo(channels: int, estimate: NoiseEstimate | None) -> bool:
    """True where the model for photographs fits better than the one for white noise."""
    if channels == 1:
        return estimate is not None and estimate.whiteness is not None and estimate.whiteness < GRAINY
    if estimate is None or estimate.whiteness is None or estimate.sigma < CLEAR:
        return True
    return estimate.whiteness < WHITE or (estimate.color_whiteness or 0.0) < WHITE_COLOR


def reason(channels: int, photo: bool) -> str | None:
    """A sentence for the user on a choice that does not follow from the number of channels alone."""
    if channels == 3 and not photo:
        return "the noise is white: restored by the model for white noise; model= names another"
    if channels == 1 and photo:
        return "the noise is not white: restored by the model for photographs; sigma= takes the one for white noise, decorrelate=True the noise's spectrum"
    return None


def is_gray(image: Tensor) -> bool:
    """True for RGB whose channels are all equal."""
    if image.shape[1] != 3:
        return False
    red, green, blue = image.unbind(1)
    return bool((red == green).all()) and bool((green == blue).all())
