"""Luma for super-resolution."""

from __future__ import annotations

import torch

from nlrn.restoration.luma import recolor, split


def test_colours_come_back():
    image = torch.rand(2, 3, 5, 6)
    luma, chroma = split(image)
    torch.testing.assert_close(recolor(luma, chroma), image)
