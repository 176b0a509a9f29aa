"""Stacks: planes of arrays and pages of files, with one range of values and one estimate of the noise."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

import nlrn
from nlrn.files.images import Image
from nlrn.restoration import PageReports, Report, RestoredPages, Restorer, restore_stack

RAMP = np.add.outer(np.linspace(0.2, 0.8, 24), np.linspace(0, 0.15, 20))
NOISE = np.random.default_rng(0).normal(0, 1, (6, 24, 20))


class Seen(nn.Module):
    """A method that returns its input, and remembers it and the noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[torch.Tensor] = []
        self.levels: list[float | None] = []

    def forward(self, image: torch.Tensor, sigma: float | None = None) -> torch.Tensor:
        self.images.append(image.clone())
        self.levels.append(sigma)
        return image


def stack(dtype: str, white: float) -> np.ndarray:
    """Six planes, each half as bright as the one before, with noise."""
    values = white * (RAMP * 0.5 ** np.arange(6)[:, None, None] + 0.01 * NOISE)
    return values.clip(0).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "white"), [("uint16", 3000), ("float32", 1e-4), ("float64", 4e4), ("int32", 1e5)]
)
def test_one_range_for_all_planes(dtype, white):
    """Brightness can be compared between planes before the network, in it, and after it."""
    model, planes = Seen(), stack(dtype, white)
    result = nlrn.denoise(planes, model=model, axes="ZYX")
    seen = np.stack([image[0, 0].numpy() for image in model.images]).astype(float)
    slope = (seen[0].max() - seen[0].min()) / (float(planes[0].max()) - float(planes[0].min()))
    assert np.allclose(
        seen - seen[0].min(), (planes.astype(float) - float(planes[0].min())) * slope, atol=1e-5
    )
    assert np.array_equal(result, planes)
    assert result.dtype == planes.dtype


def test_planes_apart_would_have_ranges_of_their_own():
    """Otherwise the test above would show nothing."""
    model, planes = Seen(), stack("float32", 1e-4)
    for plane in planes[:4]:
        nlrn.denoise(plane, 1e-6, model=model)
    assert all(image.max() > 0.8 for image in model.images)


@pytest.mark.parametrize("sigma", [None, "auto"])
def test_one_estimate_for_a_stack(sigma):
    planes = (255 * (RAMP + 0.02 * NOISE * np.linspace(1, 2, 6)[:, None, None])).clip(0, 255).astype("uint8")
    alike = restored_levels(planes, sigma, "stack")
    assert len(set(alike)) == 1
    own = restored_levels(planes, sigma, "page")
    assert len(set(own)) == 6
    assert alike[0] == pytest.approx(np.median(own))


def restored_levels(planes: np.ndarray, sigma, per) -> list[float]:
    pages = Listed([Image(plane) for plane in planes])
    restored = RestoredPages(Restorer("gaussian"), pages, sigma, estimate=per)
    levels: list[float] = []
    add = restored._reports.add
    restored._reports.add = lambda report: (levels.append(255 * report.sigma), add(report))  # type: ignore[method-assign]
    assert len(list(restored)) == len(planes)
    assert 255 * restored.report().sigma == pytest.approx(np.mean([level for level in levels if level]))
    return levels


class Listed(list):
    """Pages in memory."""

    def group(self, index: int) -> tuple[int, int]:
        return self[index].pixels.shape


def test_blank_planes_do_not_spoil_the_estimate():
    planes = (255 * (RAMP + 0.04 * NOISE)).clip(0, 255).astype("uint8")
    planes[::2] = 40
    levels = restored_levels(planes, "auto", "stack")
    assert levels[1] == pytest.approx(10.2, rel=0.25)
    assert levels[0] == 0  # it is constant


def test_the_model_is_chosen_for_the_stack(caplog):
    """White noise in all but one plane of RGB."""
    planes = np.repeat((255 * (RAMP + 0.05 * NOISE))[..., None], 3, -1)
    planes = planes + np.random.default_rng(1).normal(0, 12, planes.shape)
    planes[0] = 255 * RAMP[..., None]
    with caplog.at_level(logging.INFO, logger="nlrn"):
        nlrn.denoise(planes.clip(0, 255).astype("uint8"), axes="ZYXS", steps=2)
    assert any("the noise is white" in message for message in caplog.messages)


def test_channels_are_stacks_of_their_own():
    model = Seen()
    planes = np.stack([stack("float32", 1), stack("float32", 1e-3)], 1)  # a bright and a faint dye
    result = nlrn.denoise(planes, model=model, axes="ZCYX")
    assert np.array_equal(result, planes)
    assert model.images[1].max() > 0.5 < model.images[0].max()


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("ZYX", (3, 17, 19)),
        ("YXZ", (17, 19, 3)),
        ("XZY", (19, 3, 17)),
        ("TZCYX", (2, 1, 2, 17, 19)),
        ("ZYXS", (2, 17, 19, 3)),
        ("ZYXS", (2, 17, 19, 4)),
        ("ZSYX", (2, 3, 17, 19)),
        ("ZYXC", (2, 17, 19, 3)),
        ("YX", (17, 19)),
        ("YXS", (17, 19, 3)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_plane_is_restored_as_it_would_be_alone(axes, shape, order):
    planes = np.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), order=order)
    result = nlrn.denoise(planes, 20, model="gaussian", axes=axes)
    assert result.shape == planes.shape
    color = "S" if "S" in axes else "C" if axes[-1] == "C" else ""
    outer = "".join(letter for letter in axes if letter not in f"YX{color}")
    order_ = [axes.index(letter) for letter in f"{outer}YX{color}"]
    before, after = planes.transpose(order_), result.transpose(order_)
    for place in np.ndindex(before.shape[: len(outer)]):
        assert np.array_equal(after[place], nlrn.denoise(before[place], 20, model="gaussian"))


def test_enlarged_stacks(tiny_upscaler):
    planes = stack("uint16", 3000)[:, :9, :8]
    assert nlrn.upscale(planes, 2, model=tiny_upscaler, axes="TYX").shape == (6, 18, 16)
    assert nlrn.upscale(planes.transpose(1, 2, 0), 3, model=tiny_upscaler, axes="YXT").shape == (27, 24, 6)


def test_masks_and_missing_data_of_a_stack():
    planes = stack("float32", 1e-3)
    planes[1, 3:6, 4:8] = np.nan
    planes[4] = np.nan
    model = Seen()
    result = nlrn.denoise(planes, model=model, axes="ZYX", nodata="nan")
    assert np.array_equal(result, planes, equal_nan=True)
    assert all(torch.isfinite(image).all() for image in model.images)
    mask = np.isnan(planes)
    masked = nlrn.denoise(np.ma.MaskedArray(planes, mask, fill_value=7), model=Seen(), axes="ZYX")
    assert np.array_equal(np.ma.getmaskarray(masked), mask)
    assert masked.fill_value == 7
    with pytest.raises(ValueError, match="NaN or infinite values"):
        nlrn.denoise(planes, model=Seen(), axes="ZYX")


def test_a_given_range_reaches_to_the_extremes_of_each_plane():
    planes = stack("uint16", 900)
    planes[2, 5, 5] = 1500
    model = Seen()
    result = nlrn.denoise(planes, model=model, axes="ZYX", data_range=1000)
    assert np.array_equal(result, planes)
    assert model.images[0].max() == pytest.approx(planes[0].max() / 1000)


@pytest.mark.parametrize(
    ("shape", "options", "words"),
    [
        ((9, 8, 7), {}, "1 to 4 channels .*got 7; a stack of images has axes="),
        ((3, 9, 8, 3), {}, "must be HxW or HxWxC.*a stack of images has axes="),
        ((9, 8, 7), {"axes": "ZY"}, "axes must name 3 axes"),
        ((9, 8, 7), {"axes": "ZYQ"}, "must have Y and X"),
        ((9, 8, 7), {"axes": "zyx"}, "different capital letters"),
        ((9, 8, 7), {"axes": "YYX"}, "different capital letters"),
        ((9, 8, 7), {"axes": 3}, "different capital letters"),
        ((9, 8, 7), {"axes": "YXS"}, "1 to 4 channels"),
        ((0, 8, 7), {"axes": "ZYX"}, "must not be empty"),
        ((9, 8, 7), {"axes": "ZYX", "estimate": "all"}, "estimate must be 'stack' or 'page', got 'all'"),
        ((9, 8), {"estimate": "all"}, "estimate must be 'stack' or 'page', got 'all'"),
        ((9, 8, 7), {"axes": "ZYX", "channel_axis": 0}, "axes= is for NumPy arrays, without channel_axis"),
    ],
)
def test_axes_that_do_not_fit(shape, options, words):
    with pytest.raises(ValueError, match=words):
        nlrn.denoise(np.zeros(shape, np.uint8), 5, model="gaussian", **options)


def test_axes_are_for_arrays():
    with pytest.raises(ValueError, match="axes= is for NumPy arrays, not for Tensor"):
        nlrn.denoise(torch.zeros(3, 9, 8), axes="ZYX")


def test_progress_goes_through_all_planes():
    seen: list[float] = []
    nlrn.denoise(
        stack("uint16", 900),
        model=nlrn.load_model("nlrn-small-gray"),
        steps=2,
        axes="ZYX",
        progress=seen.append,
    )
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
    assert sum(fraction <= 1 / 6 for fraction in seen) >= 1


def test_sentences_on_pages_come_once():
    reports = PageReports()
    for page in range(1, 6):
        notes = ["the same on all", f"kept {page}%"]
        notes += ["on one"] * (page == 3) + ["on three"] * (page > 2)
        reports.add(Report("m", page / 255, True, tuple(notes), (), 1.0))
    report = reports.joined()
    assert report.notes == (
        "the same on all",
        "kept 1% (page 1 and 4 more like it)",
        "on one (page 3)",
        "on three (page 3 and 2 more)",
    )
    assert (report.model, report.seconds) == ("m", 5)
    assert 255 * report.sigma == pytest.approx(3)


def test_noise_of_a_sensor_is_that_of_each_plane():
    planes = np.random.default_rng(0).poisson(400 * RAMP * np.array([1, 4])[:, None, None]).astype(np.uint16)
    options = {"noise": "poisson-gaussian", "gain": 1.0, "read_noise": 2.0, "model": "gaussian"}
    result = nlrn.denoise(planes, axes="ZYX", **options)
    assert all(np.array_equal(result[i], nlrn.denoise(planes[i], **options)) for i in range(2))


def test_a_stack_of_one_plane_is_an_image():
    plane = stack("uint16", 3000)[0]
    alone, _ = Restorer("gaussian").array(plane)
    result, _ = restore_stack(Restorer("gaussian"), plane[None], "ZYX")
    assert np.array_equal(result[0], alone)


def test_a_constant_plane_does_not_lower_the_level_of_the_stack(caplog):
    caplog.set_level("INFO")
    rng = np.random.default_rng(0)
    stack = (128 + 12 * rng.standard_normal((4, 40, 48))).round().clip(0, 255).astype(np.uint8)
    stack[2] = 77
    nlrn.denoise(stack, axes="ZYX")
    (level,) = [
        float(r.message.split(":")[1].split()[0]) for r in caplog.records if "noise level" in r.message
    ]
    assert level == pytest.approx(12, rel=0.1)


def test_sigma_of_another_kind_is_named():
    """Four numbers are those of channels; a level for each plane is `[4, 1, 1]`."""
    with pytest.raises(ValueError, match=r"of 32 rows and 32 columns; got an array of shape \(4,\)"):
        nlrn.denoise(np.zeros((4, 32, 32), np.uint8), np.array([5, 5, 5, 6]), axes="ZYX")
