"""`benchmarks/dust.py`: the dust that it draws, and its figures."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.dust import COUNT, DUST, GRAIN, SIDE, dusty, error, psnr

CLEAN = np.full((SIDE, SIDE), 128.0)


@pytest.mark.parametrize("name", DUST)
def test_dust_is_what_its_name_says(name):
    given, mask = dusty(CLEAN, np.random.default_rng(0), *DUST[name])
    again, _ = dusty(CLEAN, np.random.default_rng(0), *DUST[name])
    assert (given == again).all()
    size = DUST[name][1]
    area = {"speck": 1 if size == 1 else np.pi * size**2 / 4, "hair": 20 * size}[DUST[name][0]]
    assert mask.sum() == pytest.approx(COUNT * area, rel=0.35)
    assert set(np.unique(given[mask])) == {8, 250}
    assert given[~mask].std() == pytest.approx(GRAIN, rel=0.05)


def test_the_figures():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:2] = True
    image = CLEAN + np.where(mask, 10, 1)
    assert error(image, CLEAN, mask) == pytest.approx(10)
    assert psnr(image, CLEAN, ~mask) == pytest.approx(20 * np.log10(255))
