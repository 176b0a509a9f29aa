"""Networks adapted to noisy images: what they learn from, what they reach, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from runs import config

import nlrn
from nlrn.files.images import Image, write_image
from nlrn.inference import restore
from nlrn.models.weights_file import save_weights
from nlrn.ops.anscombe import SensorNoise
from nlrn.training import self_supervised
from nlrn.training.noisy import noisy_images
from nlrn.training.parts import Part
from nlrn.training.schedule import Length
from nlrn.training.self_supervised import adapt_to

SIGMA = 0.1
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A network that takes a noise level and changes nothing yet, as a file."""
    tiny = nlrn.NLRN(config().model)
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    save_weights(path, tiny.config, tiny.state_dict())
    return path


def stripes(side=64):
    y, x = np.mgrid[:side, :side]
    return 0.5 + 0.3 * np.sin(x / 3) * (y > side // 2)


def noisy(seed=0, side=64, sigma=SIGMA):
    return stripes(side) + RNG(seed).normal(0, sigma, (side, side))


def psnr(image, clean):
    return -10 * np.log10(np.mean((np.asarray(image) - clean) ** 2))


def adapted(images, path, steps, **options):
    """`nlrn.adapt` for so many steps: its clock counts them."""
    count = iter(range(10**9))
    return nlrn.adapt(images, model=path, minutes=steps / 60, clock=lambda: next(count) / 2, **options)


@pytest.mark.parametrize("pairs", [False, True], ids=["alone", "pairs"])
def test_learns_from_noise_alone(start, pairs, monkeypatch, tmp_path):
    """No clean image is seen, and the PSNR rises by decibels; the file does what the object does."""
    monkeypatch.setattr(self_supervised, "LEARNING_RATE", 3e-3)
    monkeypatch.setattr(self_supervised, "CROP", 32)
    images = [noisy(0), noisy(1)] if pairs else noisy(0)
    result = adapted(images, start, 40, sigma=SIGMA, pairs=pairs)
    before, after = (
        psnr(nlrn.denoise(noisy(0), sigma=SIGMA, model=model), stripes()) for model in (start, result.model)
    )
    assert result.improved
    assert after > before + 2
    assert 0.5 < result.gain / (after - before) < 2
    assert result.uncertainty < 3
    assert "higher" in result.summary
    file = result.save(tmp_path / "mine.safetensors")
    again = nlrn.denoise(noisy(0), sigma=SIGMA, model=file)
    np.testing.assert_allclose(again, nlrn.denoise(noisy(0), sigma=SIGMA, model=result.model), atol=1e-6)


def test_what_is_no_better_is_not_kept(start, monkeypatch):
    """A learning rate that destroys the network gives back the one it started from."""
    monkeypatch.setattr(self_supervised, "LEARNING_RATE", 3.0)
    result = adapted(noisy(), start, 8, sigma=SIGMA)
    assert not result.improved
    assert result.steps < 8
    assert result.gain == 0
    assert "not adapted" in result.summary
    for name, value in nlrn.load_model(start).state_dict().items():
        assert torch.equal(result.model.state_dict()[name], value), name


def test_summary_of_a_gain_that_is_not_known():
    unknown = self_supervised.Adaptation(nlrn.NLRN(config().model), True, float("nan"), float("nan"), 1, 1.0)
    assert unknown.summary.startswith("adapted: better")
    assert "nan" not in unknown.summary


def test_same_seed_same_weights(start):
    results = [adapted(noisy(), start, 4, sigma=SIGMA, seed=seed) for seed in (1, 1, 2)]
    first, second, third = (r.model.state_dict()["input_conv.weight"] for r in results)
    assert torch.equal(first, second)
    assert not results[0].improved or not torch.equal(first, third)


def test_length_in_steps_and_global_random_numbers(start):
    (one,), _ = noisy_images([noisy()], SIGMA, {})
    model = nlrn.load_model(start)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert adapt_to([one], model, Length(steps=3)).steps == 3
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "sigma", [np.full((64, 64), SIGMA), (SIGMA, SIGMA, 2 * SIGMA)], ids=["map", "channels"]
)
def test_levels_that_differ_are_refused(sigma):
    with pytest.raises(ValueError, match="sigma must be a number or 'auto', got "):
        noisy_images([noisy()], sigma, {})


def test_recorrupted_noises_have_nothing_in_common():
    clean = torch.full((1, 1, 512, 512), 0.5)
    noise, added = torch.randn(2, 1, 1, 512, 512, generator=torch.Generator().manual_seed(0)) * SIGMA
    given, target = (one - clean for one in self_supervised.recorrupted(clean + noise, added))
    assert abs(float((given * target).mean())) < 0.02 * SIGMA**2
    ratio = float(given.std()) / SIGMA
    assert ratio == pytest.approx((1 + self_supervised.RECORRUPTION**2) ** 0.5, rel=0.01)


def test_error_estimate_is_that_of_the_clean_image():
    """Without a clean image, and within what chance leaves of the noise of so many pixels."""
    from skimage.data import grass

    clean = grass()[:64, :64] / 255
    image = (clean + RNG(3).normal(0, SIGMA, clean.shape)).astype(np.float32)
    model = nlrn.load_model("nlrn-gray")
    (one,), _ = noisy_images([image], SIGMA, {})
    run = self_supervised._Run([one], model, False, 0, torch.device("cpu"))
    error = np.mean((restore(model, one.image[None], SIGMA)[0, 0].numpy() - clean) ** 2)
    assert abs(float(run._errors(model, run.looked_at[0]).mean()) - error) < 3 * SIGMA**2 * 2**0.5 / 64
    assert error < SIGMA**2 / 2


class TestWhatIsSeen:
    def test_units_are_those_of_denoise(self):
        deep = (60000 * stripes().clip(0, 1)).astype(np.uint16)
        (one,), _ = noisy_images([deep], 3000.0, {})
        assert one.sigma == pytest.approx(3000 / 65535)
        np.testing.assert_allclose(one.image[0].numpy(), deep / 65535, atol=1e-6)

    def test_counts_have_noise_of_one_level(self):
        counts = RNG(0).poisson(100 * stripes(96)).astype(float)
        (one,), _ = noisy_images(
            [counts], None, {"noise": "poisson-gaussian", "gain": 1.0, "read_noise": 0.0}
        )
        root = 2 * np.sqrt(SensorNoise(1.0).gain * counts + 3 / 8)
        slope = np.polyfit(root.ravel(), one.image.numpy().ravel(), 1)[0]
        assert one.sigma == pytest.approx(slope, rel=1e-3)

    @pytest.mark.parametrize("axes", ["TYX", "ZYX", "CYX"])
    def test_stacks(self, axes):
        stack = np.stack([noisy(i, 32) for i in range(3)])
        found, _ = noisy_images([stack], SIGMA, {}, axes)
        assert [one.image.shape for one in found] == [(1, 32, 32)] * 3
        assert len({one.stack for one in found}) == (3 if axes == "CYX" else 1)

    def test_an_empty_image_is_left_out(self):
        found, _ = noisy_images([noisy(0), np.full((64, 64), 0.5), noisy(1)], None, {"data_range": 1.0})
        assert [one.name for one in found] == ["image 1", "image 3"]

    def test_hidden_pixels_do_not_count(self):
        mask = np.zeros((64, 64), bool)
        mask[:8] = True
        (one,), _ = noisy_images([np.ma.MaskedArray(noisy(), mask)], SIGMA, {})
        assert torch.equal(one.counted[0], torch.from_numpy(~mask))
        example = Part.whole(one, one, torch.Generator().manual_seed(0))
        assert not (example.learned | example.held)[:8].any()
        assert (example.learned ^ example.held)[8:].all()

    def test_noise_that_was_cut_off_does_not_count(self):
        clean = np.where(np.arange(64) < 32, 0.0, 0.6) * np.ones((64, 1))
        eight_bit = (
            (255 * (clean + RNG(0).normal(0, SIGMA, clean.shape))).clip(0, 255).round().astype(np.uint8)
        )
        (one,), _ = noisy_images([eight_bit], 25.5, {})
        example = Part.whole(one, one, torch.Generator().manual_seed(0))
        seen = example.without_ends(torch.from_numpy(clean)[None].float())
        assert not (seen.learned | seen.held)[:, :32].any()
        assert (seen.learned | seen.held)[:, 32:].all()
        assert (seen.visible[:, :32] ^ example.held[:, :32]).all()

    def test_zeros_of_a_few_photons_count(self):
        counts = RNG(0).poisson(2.0 * np.ones((64, 64))).astype(float)
        counts[:32] = RNG(1).poisson(40.0, (32, 64))
        (one,), _ = noisy_images(
            [counts], None, {"noise": "poisson-gaussian", "gain": 1.0, "read_noise": 0.0}
        )
        part = Part.whole(one, one, torch.Generator().manual_seed(0))
        seen = part.without_ends(one.image.mean(2, keepdim=True).expand_as(one.image))
        assert (seen.learned ^ seen.held).all()

    def test_rgb_for_a_grey_network(self, start):
        color = np.stack([noisy(i) for i in range(3)], -1)
        result = adapted(color, start, 1, sigma=SIGMA)
        assert result.model.config.channels == 1

    def test_files_take_grey_levels(self, tmp_path):
        write_image(Image((255 * noisy().clip(0, 1)).astype(np.uint8)), tmp_path / "a.png")
        (one,), _ = noisy_images([tmp_path / "a.png"], 25.5, {})
        assert one.sigma == pytest.approx(0.1)


class TestRefused:
    def test_noise_that_is_not_white(self):
        from scipy.ndimage import gaussian_filter

        smooth = gaussian_filter(RNG(0).normal(0, 0.3, (96, 96)), 1.2)
        with pytest.raises(ValueError, match=r"the noise of image 1 is not white .* pairs=True"):
            nlrn.adapt(0.5 + smooth)

    def test_no_noise(self):
        with pytest.raises(ValueError, match=r"image 1 has no noise that can be told"):
            nlrn.adapt(np.tile(np.linspace(0.1, 0.9, 64), (64, 1)).round(1))

    @pytest.mark.parametrize("model", ["bm3d", "nlrn-photo"])
    def test_other_models(self, model):
        with pytest.raises(ValueError, match=rf"{model} .*adapted|{model} has no weights"):
            nlrn.adapt(noisy(), model=model)

    def test_grey_image_for_a_color_model(self):
        with pytest.raises(ValueError, match="is grey"):
            nlrn.adapt(noisy(), sigma=SIGMA, model="nlrn-color")

    def test_one_frame_for_pairs(self, start):
        with pytest.raises(ValueError, match="pairs need two frames"):
            adapted(noisy(), start, 1, sigma=SIGMA, pairs=True)

    def test_frames_of_two_sizes(self, start):
        with pytest.raises(ValueError, match="got 64x64 float64 and 32x32 float64"):
            adapted([noisy(), noisy(side=32)], start, 1, sigma=SIGMA, pairs=True)

    def test_small_image(self, start):
        with pytest.raises(ValueError, match="at least 32 pixels a side, got 9"):
            adapted(noisy(side=9), start, 1, sigma=SIGMA)

    def test_nothing(self):
        with pytest.raises(ValueError, match="no image"):
            nlrn.adapt([])

    @pytest.mark.parametrize("minutes", [0, -1, float("nan")])
    def test_minutes(self, minutes):
        with pytest.raises(ValueError, match="positive and finite"):
            nlrn.adapt(noisy(), minutes=minutes)


def test_frames_of_counts_share_a_range():
    """Each frame is the target of the other, so that both are in the same units."""
    frames = [RNG(i).poisson(200 * stripes(96)).astype(float) for i in range(2)]
    frames[1][0, 0] = 900
    settings = {"noise": "poisson-gaussian", "gain": 1.0, "read_noise": 0.0}
    first, second = noisy_images(frames, None, settings, frames=True)[0]
    assert first.sigma == second.sigma
    assert first.stack == second.stack
