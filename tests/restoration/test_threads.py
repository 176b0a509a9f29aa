"""A `Restorer` that several threads use at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nlrn.restoration import Restorer

SIZES = [(40, 56), (33, 71), (64, 48), (17, 90)]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_give_the_bits_of_one(precision):
    """Also in the first calls, which load the models; grey and RGB, noise levels given and estimated."""
    rng = np.random.default_rng(0)
    pictures = [
        (np.clip(128 + 20 * rng.standard_normal((*size, *channels)), 0, 255).astype(np.uint8), sigma)
        for size in SIZES
        for channels, sigma in (((), 20), ((3,), 20), ((3,), None))
    ]
    alone = Restorer(precision=precision)
    expected = [alone.array(image, sigma)[0] for image, sigma in pictures]
    shared = Restorer(precision=precision)
    for _ in range(2):
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda given: shared.array(*given)[0], pictures))
        for actual, right in zip(results, expected, strict=True):
            assert np.array_equal(actual, right)


def test_progress_and_reports_are_each_threads_own():
    shared, rng = Restorer(), np.random.default_rng(0)
    images = [(128 + sigma * rng.standard_normal((48, 48))).astype(np.float32) for sigma in (5, 10, 20, 40)]

    def restore(image):
        fractions = []
        _, report = shared.array(image, "auto", fractions.append)
        return report.sigma, fractions

    alone = [restore(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(restore, images)) == alone
