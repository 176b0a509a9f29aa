"""Alpha as large as its image: edges through the network, constant and soft areas as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.files.images import Image, read_image, write_image
from nlrn.ops.resize import bicubic_resize
from nlrn.restoration.alpha import enlarge_alpha
from nlrn.restoration.enlargement import Enlargement
from pictures import picture

SIDE = 96


def disc():
    """An anti-aliased disc, 255 inside and 0 outside."""
    y, x = np.mgrid[: 8 * SIDE, : 8 * SIDE] / 8 - SIDE / 2 + 1 / 16
    inside = np.hypot(y, x) < 31.3
    return np.rint(255 * inside.reshape(SIDE, 8, SIDE, 8).mean((1, 3))).astype(np.uint8)


def smaller(alpha, scale):
    small = bicubic_resize(torch.from_numpy(alpha / 255)[None, None].float(), SIDE // scale, SIDE // scale)
    return (small[0, 0].clamp(0, 1) * 255).round().byte().numpy()


def bicubic(alpha, scale):
    large = bicubic_resize(torch.from_numpy(alpha / 255)[None, None].float(), SIDE, SIDE)
    return (large[0, 0].clamp(0, 1) * 255).round().byte().numpy()


def enlarged(alpha, scale, **options):
    """Alpha of a grey image that is enlarged."""
    pixels = np.dstack([np.full(alpha.shape, 99, np.uint8), alpha])
    return nlrn.upscale(pixels, scale, **options)[..., 1]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_edge_is_far_better_than_bicubic(scale):
    alpha = disc()
    small = smaller(alpha, scale)
    assert psnr(enlarged(small, scale), alpha) > psnr(bicubic(small, scale), alpha) + 6


@pytest.mark.parametrize("scale", [2, 3])
def test_constant_areas_stay(scale):
    small = smaller(disc(), scale)
    large = enlarged(small, scale)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(small, 2, mode="edge"), (5, 5))
    flat = (windows == small[..., None, None]).all((2, 3)).repeat(scale, 0).repeat(scale, 1)
    assert flat.mean() > 0.5
    assert np.array_equal(large[flat], small.repeat(scale, 0).repeat(scale, 1)[flat])


def test_soft_alpha_is_bicubic(tiny_upscaler):
    alpha = np.rint(gaussian_filter(disc().astype(float), 4)).astype(np.uint8)
    for soft in (alpha, np.tile(np.linspace(0, 255, SIDE).round().astype(np.uint8), (SIDE, 1))):
        small = smaller(soft, 2)
        assert np.array_equal(enlarged(small, 2, model=tiny_upscaler), bicubic(small, 2))


def test_the_network_sees_images_with_edges_alone():
    seen = []

    def network(plane, progress):
        progress(1.0)
        seen.append(tuple(plane.shape))
        return torch.full((1, 1, 2 * plane.shape[2], 2 * plane.shape[3]), 2.0)

    target = Enlargement(2).of(48, 48)
    small = torch.from_numpy(smaller(disc(), 2))
    batch = torch.stack([torch.full_like(small, 255), small, torch.zeros_like(small)])[:, None]
    done = []
    large, left = enlarge_alpha(batch, target, network, None, done.append)
    left(1.0)
    assert done == [0.5, 1.0]
    assert seen == [(1, 1, 48, 48)]
    assert (large[0] == 255).all()
    assert (large[2] == 0).all()
    # What the network makes of it stays within the range.
    assert large[1].max() == 255
    assert large.dtype == torch.uint8


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_opaque_images_are_enlarged_as_without_alpha(dtype, tiny_upscaler):
    array = picture((9, 7, 3), dtype)
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    both = np.dstack([array, np.full((9, 7), white, dtype)])
    result = nlrn.upscale(both, 2, model=tiny_upscaler, data_range=float(white))
    assert np.array_equal(
        result[..., :3], nlrn.upscale(array, 2, model=tiny_upscaler, data_range=float(white))
    )
    assert (result[..., 3] == white).all()


def test_all_kinds_and_restore_agree(tmp_path):
    small, color = smaller(disc(), 2), np.full((48, 48, 3), 128, np.uint8)
    expected = enlarged(small, 2)
    write_image(Image(color, alpha=small, format="PNG"), tmp_path / "a.png")
    nlrn.upscale(tmp_path / "a.png", 2, output=tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png").alpha, expected)
    tensor = torch.from_numpy(np.dstack([color, small])).permute(2, 0, 1)
    assert np.array_equal(nlrn.upscale(tensor, 2)[3], expected)
    assert np.array_equal(nlrn.restore(tensor, 2)[3], expected)
    assert np.array_equal(nlrn.upscale(tensor, size=(96, 96))[3], expected)


def test_restore_makes_no_plan_for_alpha(monkeypatch):
    """Which is enlarged, and neither denoised nor freed of compression."""
    from nlrn.restoration.combined import Combined

    plans, plan = [], Combined.plan
    monkeypatch.setattr(Combined, "plan", lambda *args: plans.append(1) or plan(*args))
    small = smaller(disc(), 2)
    nlrn.restore(np.dstack([np.full(small.shape, 99, np.uint8), small]), 2)
    assert len(plans) == 1


def test_colours_that_are_multiplied_with_alpha_stay_within_it(tmp_path):
    y, x = np.mgrid[:40, :40] - 20
    alpha = np.where(y**2 + x**2 < 150, 255, 0).astype(np.uint8)
    alpha[np.abs(y**2 + x**2 - 150) < 20] = 128
    bright = np.dstack([alpha, alpha // 2, alpha // 4])
    write_image(Image(bright, alpha=alpha, premultiplied=True), tmp_path / "a.tif")
    nlrn.upscale(tmp_path / "a.tif", 2, output=tmp_path / "b.tif")
    result = read_image(tmp_path / "b.tif")
    assert result.premultiplied
    assert (result.pixels <= result.alpha[..., None]).all()
    # Light of its own is beyond alpha before, and may be after.
    write_image(Image(bright, alpha=alpha // 2, premultiplied=True), tmp_path / "c.tif")
    nlrn.upscale(tmp_path / "c.tif", 2, output=tmp_path / "d.tif")
    result = read_image(tmp_path / "d.tif")
    assert (result.pixels > result.alpha[..., None]).any()
