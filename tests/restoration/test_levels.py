"""Noise levels of pixels and channels: what they may look like, and that each reaches its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import nlrn
from nlrn.evaluation.metrics import psnr
from nlrn.files.images import Image, read_image, write_image
from nlrn.restoration import Restorer
from nlrn.restoration.levels import levels_of
from pictures import picture

RISING = np.linspace(5, 40, 20) * np.ones((16, 1))


def test_a_constant_map_is_a_number(tiny_grey):
    array = picture((16, 20))
    expected = nlrn.denoise(array, 20, model=tiny_grey)
    for sigma in (np.full((16, 20), 20), torch.full((16, 20), 20.0), np.full((1, 1), 20), [20], np.array(20)):
        assert np.array_equal(nlrn.denoise(array, sigma, model=tiny_grey), expected)
    # Also for methods that take one level.
    assert np.array_equal(
        nlrn.denoise(array, np.full((16, 20), 20), model="gaussian"),
        nlrn.denoise(array, 20, model="gaussian"),
    )


def test_all_kinds_agree(tiny_colour, tmp_path):
    array = picture((16, 20, 3))
    expected = nlrn.denoise(array, RISING, model=tiny_colour)
    assert not np.array_equal(expected, nlrn.denoise(array, RISING.mean(), model=tiny_colour))
    for sigma in (RISING[..., None], RISING[:1], RISING[:1, :, None], torch.from_numpy(RISING)):
        if sigma.shape != (1, 20):  # of other axes than the image
            assert np.array_equal(nlrn.denoise(array, sigma, model=tiny_colour), expected)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    plane = torch.from_numpy(RISING)
    for image, sigma in (
        (tensor, plane),
        (tensor, plane[None]),
        (tensor, plane[None, :1]),
        (tensor[None], plane),
        (tensor[None], plane[None, None]),
    ):
        result = nlrn.denoise(image, sigma, model=tiny_colour)
        assert np.array_equal(result.reshape(3, 16, 20).permute(1, 2, 0), expected)
    floats = nlrn.denoise(array.astype(np.float32) / 255, RISING / 255, model=tiny_colour)
    assert np.array_equal(np.clip(np.rint(floats * 255), 0, 255), expected)
    write_image(Image(array, format="PNG"), tmp_path / "a.png")
    assert np.array_equal(nlrn.denoise(tmp_path / "a.png", RISING, model=tiny_colour), expected)
    nlrn.denoise(tmp_path / "a.png", RISING, model=tiny_colour, output=tmp_path / "b.png")
    assert np.array_equal(read_image(tmp_path / "b.png").pixels, expected)
    direct = nlrn.load_model(tiny_colour)((tensor[None] / 255).float(), (plane[None, None] / 255).float())
    assert np.array_equal(np.clip(np.rint(direct[0].permute(1, 2, 0).numpy() * 255), 0, 255), expected)


def test_images_of_a_batch_have_maps_of_their_own(tiny_grey):
    batch = torch.from_numpy(picture((3, 1, 16, 20)))
    plane = torch.from_numpy(RISING)
    maps = torch.stack([plane, plane.flip(1), torch.full((16, 20), 10.0)])[:, None]
    result = nlrn.denoise(batch, maps, model=tiny_grey)
    for image, sigma, restored in zip(batch, (plane, plane.flip(1), 10), result, strict=True):
        assert torch.equal(nlrn.denoise(image, sigma, model=tiny_grey), restored)
    numbers = nlrn.denoise(batch, torch.tensor([10.0, 20, 30]).view(3, 1, 1, 1), model="gaussian")
    for image, sigma, restored in zip(batch, (10, 20, 30), numbers, strict=True):
        assert torch.equal(nlrn.denoise(image, sigma, model="gaussian"), restored)


def test_images_of_a_batch_have_ranges_of_their_own(tiny_grey):
    batch = torch.from_numpy(picture((2, 1, 16, 20), "float32")) * torch.tensor([1.0, 4095]).view(2, 1, 1, 1)
    scale = torch.tensor([1.0, 4095]).view(2, 1, 1, 1)
    maps = torch.from_numpy(RISING).float() / 255 * scale
    result = nlrn.denoise(batch, maps, model=tiny_grey)
    for i in range(2):
        torch.testing.assert_close(nlrn.denoise(batch[i], maps[i], model=tiny_grey), result[i])


def test_alpha_and_masks_do_not_count(tiny_colour):
    rgba = picture((16, 20, 4)) | np.array([0, 0, 0, 1], np.uint8)
    result = nlrn.denoise(rgba, RISING, model=tiny_colour)
    assert np.array_equal(result[..., 3], rgba[..., 3])
    expected = nlrn.denoise(rgba[..., :3], RISING, model=tiny_colour)
    assert np.array_equal(result[..., :3], expected)
    assert np.array_equal(
        nlrn.denoise(rgba, [9, 9, 9], model=tiny_colour)[..., :3],
        nlrn.denoise(rgba[..., :3], 9, model=tiny_colour),
    )


def test_a_map_of_gray_rgb_is_restored_as_grey(tiny_grey):
    one = picture((16, 20))
    result = nlrn.denoise(np.dstack([one] * 3), RISING, model=tiny_grey)
    assert np.array_equal(result, np.dstack([nlrn.denoise(one, RISING, model=tiny_grey)] * 3))


class TestStacks:
    stack = picture((3, 16, 20))

    def test_one_map_for_all_planes(self, tiny_grey):
        result = nlrn.denoise(self.stack, RISING, axes="ZYX", model=tiny_grey)
        expected = [nlrn.denoise(plane, RISING, model=tiny_grey) for plane in self.stack]
        assert np.array_equal(result, expected)

    def test_a_level_or_a_map_for_each_plane(self, tiny_grey):
        levels = np.array([5, 20, 40.0])
        result = nlrn.denoise(self.stack, levels[:, None, None], axes="ZYX", model=tiny_grey)
        expected = [nlrn.denoise(p, s, model=tiny_grey) for p, s in zip(self.stack, levels, strict=True)]
        assert np.array_equal(result, expected)
        maps = np.stack([RISING, RISING[:, ::-1], RISING[::-1]])
        result = nlrn.denoise(self.stack, maps, axes="ZYX", model=tiny_grey)
        expected = [nlrn.denoise(p, s, model=tiny_grey) for p, s in zip(self.stack, maps, strict=True)]
        assert np.array_equal(result, expected)
        moved = nlrn.denoise(
            self.stack.transpose(1, 0, 2), maps.transpose(1, 0, 2), axes="YZX", model=tiny_grey
        )
        assert np.array_equal(moved.transpose(1, 0, 2), result)

    def test_another_length(self, tiny_grey):
        with pytest.raises(ValueError, match=r"shape of the stack, \(3, 16, 20\), or 1 .*; got \(2, 1, 1\)"):
            nlrn.denoise(self.stack, np.ones((2, 1, 1)), axes="ZYX", model=tiny_grey)
        with pytest.raises(ValueError, match=r"16 rows and 20 columns; got an array of shape \(20, 16\)"):
            nlrn.denoise(self.stack, RISING.T, axes="ZYX", model=tiny_grey)

    def test_pages_of_a_file(self, tiny_grey, tmp_path):
        import tifffile

        tifffile.imwrite(tmp_path / "a.tif", self.stack, photometric="minisblack")
        result = nlrn.denoise(tmp_path / "a.tif", RISING, model=tiny_grey)
        assert np.array_equal(result, [nlrn.denoise(p, RISING, model=tiny_grey) for p in self.stack])


class TestChannels:
    def test_a_grey_model_restores_each_by_itself(self, tiny_grey):
        array = picture((16, 20, 3))
        expected = np.dstack(
            [nlrn.denoise(array[..., c], s, model=tiny_grey) for c, s in enumerate((10, 20, 40))]
        )
        for sigma in ((10, 20, 40), [10, 20, 40], np.array([10, 20, 40]), np.array([[[10, 20, 40]]])):
            assert np.array_equal(nlrn.denoise(array, sigma, model=tiny_grey), expected)
        tensor = torch.from_numpy(array).permute(2, 0, 1)
        for image, sigma in (
            (tensor, (10, 20, 40)),
            (tensor[None], torch.tensor([10, 20, 40]).view(1, 3, 1, 1)),
        ):
            result = nlrn.denoise(image, sigma, model=tiny_grey).reshape(3, 16, 20).permute(1, 2, 0)
            assert np.array_equal(result, expected)

    def test_images_of_a_batch(self):
        batch = torch.from_numpy(picture((2, 3, 16, 20)))
        levels, done = torch.tensor([[10, 20, 40], [30, 0, 5]]), []
        for sigma in (levels.view(2, 3, 1, 1), levels[:1].view(1, 3, 1, 1)):
            result = nlrn.denoise(batch, sigma, model="gaussian", progress=done.append)
            for image, own, restored in zip(batch, sigma.expand(2, 3, 1, 1), result, strict=True):
                assert torch.equal(nlrn.denoise(image, own, model="gaussian"), restored)
            assert done.pop() == 1.0

    def test_equal_levels_are_a_number(self, tiny_colour):
        array = picture((16, 20, 3))
        assert np.array_equal(
            nlrn.denoise(array, (20, 20, 20), model=tiny_colour), nlrn.denoise(array, 20, model=tiny_colour)
        )

    def test_channels_that_are_no_colours(self, tiny_grey):
        array = picture((5, 16, 20))
        levels = (5, 10, 15, 20, 25)
        expected = [nlrn.denoise(p, s, model=tiny_grey) for p, s in zip(array, levels, strict=True)]
        assert np.array_equal(nlrn.denoise(array, levels, channel_axis=0, model=tiny_grey), expected)
        shaped = np.array(levels).reshape(5, 1, 1)
        assert np.array_equal(nlrn.denoise(array, shaped, channel_axis=0, model=tiny_grey), expected)
        with pytest.raises(ValueError, match="a number for each of 5 channels, got 4"):
            nlrn.denoise(array, levels[:4], channel_axis=0, model=tiny_grey)
        maps = nlrn.denoise(array, RISING, channel_axis=0, model=tiny_grey)
        assert np.array_equal(maps, [nlrn.denoise(p, RISING, model=tiny_grey) for p in array])

    def test_colours_on_another_axis(self, tiny_grey):
        array, levels = picture((16, 20, 3)), (10, 20, 40)
        expected = nlrn.denoise(array, levels, model=tiny_grey)
        for axis, shape in ((0, (3, 1, 1)), (1, (1, 3, 1)), (2, (1, 1, 3))):
            for sigma in (levels, np.reshape(levels, shape)):
                moved = nlrn.denoise(np.moveaxis(array, -1, axis), sigma, channel_axis=axis, model=tiny_grey)
                assert np.array_equal(np.moveaxis(moved, axis, -1), expected)

    def test_a_channel_with_hardly_any_noise_is_no_worse_than_one_without(self):
        clean = picture((32, 32, 3)) / 255
        noise = np.random.default_rng(0).normal(size=clean.shape) * (0, 20 / 255, 40 / 255)
        without, hardly = (
            psnr(
                nlrn.denoise(clean + noise, (least, 20 / 255, 40 / 255), data_range=1.0), clean, data_range=1
            )
            for least in (0, 1e-6)
        )
        assert hardly > without - 0.5

    def test_a_channel_without_noise_stays_as_it_is(self):
        array = picture((16, 20, 3))
        result = nlrn.denoise(array, (0, 0, 30), model="gaussian")
        assert np.array_equal(result[..., :2], array[..., :2])
        assert not np.array_equal(result[..., 2], array[..., 2])

    def test_a_model_for_rgb_alone_is_refused(self, tiny_colour):
        with pytest.raises(
            ValueError, match="takes one noise level for all channels, and sigma= has one for each"
        ):
            nlrn.denoise(picture((16, 20, 3)), (10, 20, 40), model=tiny_colour)

    def test_strength_keeps_a_share(self, tiny_grey):
        array = picture((16, 20, 3), "float32")
        whole, none = (
            nlrn.denoise(array, (0.1, 0.2, 0.3), model=tiny_grey, strength=share) for share in (1, 0)
        )
        half = nlrn.denoise(array, (0.1, 0.2, 0.3), model=tiny_grey, strength=0.5)
        assert np.array_equal(none, array)
        np.testing.assert_allclose(half, (array + whole) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (RISING[:-1], r"of each pixel of 16 rows and 20 columns; got an array of shape \(15, 20\)"),
        (RISING.T, r"got an array of shape \(20, 16\)"),
        ([10, 20], r"got an array of shape \(2,\)"),
        (np.ones((16, 20, 1)), r"got an array of shape \(16, 20, 1\)"),
        (np.full((16, 20), np.nan), "sigma must be finite and >= 0 everywhere, got nan"),
        (np.full((16, 20), np.inf), "got inf"),
        (-RISING, "got -40"),
        (np.ma.masked_greater(RISING, 30), "got nan"),
        (RISING > 20, "sigma must be numbers, got an array of bool"),
        (torch.ones(16, 20, dtype=torch.bool), "got an array of bool"),
        (RISING.astype(complex), "got an array of complex128"),
        ([[1], [1, 2]], "sigma must be numbers, got"),
        (["a", "b"], "sigma must be numbers, got an array of str"),
        ([], "sigma must not be empty"),
        (10 * RISING, "sigma is 400 for an image whose white is 255"),
    ],
    ids=lambda value: None if isinstance(value, str) else "sigma",
)
def test_what_is_no_sigma(sigma, message, tiny_grey):
    with pytest.raises(ValueError, match=message):
        nlrn.denoise(picture((16, 20)), sigma, model=tiny_grey)


def test_what_does_not_go_together(tiny_grey):
    array, colour = picture((16, 20)), picture((16, 20, 3))
    for model in ("bm3d", "gaussian"):
        with pytest.raises(
            ValueError, match=f"{model} takes one noise level for an image, and sigma= has one"
        ):
            nlrn.denoise(array, RISING, model=model)
    with pytest.raises(ValueError, match="decorrelate is for noise of one level, and sigma has several"):
        nlrn.denoise(array, RISING, decorrelate=True)
    with pytest.raises(ValueError, match="sigma= is for white noise"):
        nlrn.denoise(array, RISING, noise="poisson-gaussian")
    with pytest.raises(ValueError, match="numbers may be those of images or of channels; got 3 numbers"):
        nlrn.denoise([colour] * 3, [10, 20, 30], model=tiny_grey)
    with pytest.raises(ValueError, match=r"16 rows and 20 columns; got an array of shape \(3,\)"):
        nlrn.denoise(torch.zeros(3, 3, 16, 20), [0.1, 0.2, 0.3], model=tiny_grey)
    with pytest.raises(
        ValueError, match=r"or 3 numbers for the channels; got an array of shape \(16, 20, 3\)"
    ):
        nlrn.denoise(colour, np.dstack([RISING] * 3) * (1, 2, 3), model=tiny_grey)
    with pytest.raises(ValueError, match=r"got an array of shape \(16, 20\)"):
        nlrn.denoise([array, array[:9]], RISING, model=tiny_grey)


def test_the_model_of_a_map_follows_from_its_mean_square():
    restorer, array = Restorer(), picture((16, 20))
    for sigma, name in (
        (np.linspace(5, 30, 20), "nlrn-small-gray"),
        (np.linspace(10, 50, 20), "nlrn-gray"),
        (np.r_[np.full(19, 5), 70], "nlrn-gray"),  # beyond what the small one knows
    ):
        report = restorer.array(array, sigma[None] * np.ones((16, 1)))[1]
        assert report.model == name
        assert report.sigma == pytest.approx(sigma.mean() / 255)
        assert not report.warnings


def test_levels_in_units_of_the_image():
    array = picture((16, 20))
    levels = levels_of(RISING, array, torch.from_numpy(array)[None, None])
    assert levels.strongest == 40
    np.testing.assert_allclose(levels.shares[0, 0] * 40, RISING, rtol=1e-6)
    assert levels_of(np.zeros((16, 20)), array, torch.from_numpy(array)[None, None]).shares is None


def scene(channels=1):
    """A part of a photograph."""
    from skimage import data

    image = data.astronaut()[30:158, 150:310] if channels == 3 else data.camera()[60:188, 150:310]
    return image.astype(np.float32) / 255


@pytest.mark.filterwarnings("ignore:.* at the end of the range")
def test_a_map_pays():
    """Noise that rises from 5 to 40 grey levels across: the map against the mean level and the estimate."""
    clean = scene()
    sigma = np.linspace(5, 40, clean.shape[1], dtype=np.float32) / 255 * np.ones_like(clean)
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    by_map, by_mean, by_estimate = (
        nlrn.denoise(noisy, level, data_range=1.0) for level in (sigma, float(sigma.mean()), "auto")
    )
    gains = [psnr(by_map, clean) - psnr(other, clean) for other in (by_mean, by_estimate)]
    assert min(gains) > 2.5
    for half in (slice(0, 80), slice(80, 160)):
        assert psnr(by_map[:, half], clean[:, half]) > psnr(by_mean[:, half], clean[:, half]) + 1


def test_levels_of_channels_pay():
    """Against each channel by itself, and against the strongest level for all."""
    clean = scene(3)
    levels = np.array([10, 20, 40], np.float32) / 255
    noisy = clean + levels * np.random.default_rng(0).standard_normal(clean.shape, np.float32)
    result = nlrn.denoise(noisy, levels, data_range=1.0)
    alone = np.dstack([nlrn.denoise(noisy[..., c], levels[c], data_range=1.0) for c in range(3)])
    strongest = nlrn.denoise(noisy, levels.max(), data_range=1.0)
    assert psnr(result, clean) > max(psnr(alone, clean), psnr(strongest, clean)) + 0.8
    for c in range(3):
        assert psnr(result[..., c], clean[..., c]) > psnr(alone[..., c], clean[..., c]) - 0.05
