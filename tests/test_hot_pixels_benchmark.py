"""`benchmarks/hot_pixels.py`: its scenes and its counts."""

from __future__ import annotations

import numpy as np
from benchmarks.hot_pixels import FRAMES, SENSOR, SHARE, SIDE, masks, scenes, shares, spoilt

from nlrn.restoration import Restorer


def test_scenes_and_shares():
    clean = scenes()["cell, drifting"]
    assert clean.shape == (FRAMES, SIDE, SIDE)
    counts, hot = spoilt(clean, 10, 0)
    assert 0.3 * SHARE < hot.mean() < 3 * SHARE
    assert abs(np.std(counts - clean - 100, where=~hot) / np.sqrt(2 * clean.mean() + 36) - 1) < 0.1
    restorer = Restorer("gaussian", hot_pixels="stack", **SENSOR)
    (over,) = masks(counts, "stack", restorer)
    each = masks(counts, "frame", restorer)
    assert len(each) == FRAMES
    assert shares(over, hot)[0] >= np.mean([shares(one, hot)[0] for one in each])
    assert shares(hot, hot) == (1, 0)
