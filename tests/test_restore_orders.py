"""`benchmarks/restore_orders.py`: what it degrades and measures."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.restore_orders import BORDER, CAP, DEGRADATIONS, ORDERS, SIDE, crop, degraded, psnr
from skimage.data import astronaut

from nlrn.files.images import Image

CLEAN = astronaut()[:SIDE, 60 : 60 + SIDE]


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradations_are_what_their_names_say(name):
    given = degraded(CLEAN, np.random.default_rng(0), **DEGRADATIONS[name])
    reduced = 2 if "small" in name else 1
    assert given.pixels.shape == (SIDE // reduced, SIDE // reduced, 3)
    quality = int(name.split("q ")[1]) if "q " in name else None
    assert given.jpeg_quality == quality
    if name.split(",")[0] in ("noise 15", "grain 12") and quality is None:
        spread = (given.pixels.astype(float) - CLEAN)[CLEAN.min(-1) > 60].std()
        assert spread == pytest.approx(15 if "noise" in name else 12, rel=0.1)
    if name == "clean":
        assert (given.pixels == CLEAN).all()


def test_every_step_of_an_order_has_its_beginning_before_it():
    for order in ORDERS:
        assert not order or order[:-1] in ORDERS[: ORDERS.index(order)]


def test_crops_lie_off_the_grid_and_borders_do_not_count():
    image = Image(np.indices((200, 301)).sum(0).astype(np.uint8)[..., None].repeat(3, -1))
    part = crop(image)
    assert part.shape == (SIDE, SIDE, 3)
    assert part[0, 0, 0] % 8 == 6  # 3 rows and 3 columns off
    other = CLEAN.copy()
    other[:BORDER] = 0
    assert psnr(other, CLEAN) == CAP
    other[BORDER] ^= 128
    assert psnr(other, CLEAN) < CAP
