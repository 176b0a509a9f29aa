"""Luma for super-resolution."""

from __future__ import annotations

import torch

from nlrn.restoration.luma import enlarge, recolor


def test_colours_come_back():
    image = torch.rand(2, 3, 5, 6)
    luma, chroma = enlarge(image, 1)
    torch.testing.assert_close(recolor(luma, chroma), image)
