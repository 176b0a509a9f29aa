"""The benchmark of the methods without weights times nothing that is not plausible."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import classics
from benchmarks.classics import Entry, check_nlm, compare, implementations, picture


def test_every_method_is_there():
    found = {(entry.method, entry.source) for entry in implementations()}
    assert {(name, "nlrn") for name in classics.CLASSICAL} <= found
    assert {("nlm 7/21", "nlrn"), ("nlm 7/21", "scikit-image, fast")} <= found


def test_times_and_ratios():
    rows = compare([entry for entry in implementations() if entry.method in ("nlm 7/21", "wavelet")])
    assert len(rows) >= 5
    for row in rows:
        own = next(r for r in rows if (r["method"], r["by"]) == (row["method"], "nlrn"))
        assert row["ratio"] == pytest.approx(row["seconds"] / own["seconds"])
        assert 24 < row["PSNR"] < 32


def test_what_gains_nothing_is_not_timed():
    with pytest.raises(ValueError, match=r"tv by nobody gains -?0.00 dB, expected at least 6.0 dB"):
        compare([Entry("tv", "nobody", lambda noisy: noisy)])
    with pytest.raises(ValueError, match="the image has NaN"):
        compare([Entry("tv", "nobody", lambda noisy: np.full_like(noisy, np.nan))])


def test_other_non_local_means_are_not_timed(monkeypatch):
    noisy = picture()[1]
    check_nlm(noisy)
    monkeypatch.setattr(classics, "LEVEL", 2 * classics.LEVEL)
    monkeypatch.setattr(classics, "_own", lambda model: lambda x: 0.9 * x)
    with pytest.raises(ValueError, match="non-local means differ from scikit-image's by 0"):
        check_nlm(noisy)
