"""`nlrn.denoise` and the restorer behind it: kinds, models, files, refusals."""

from __future__ import annotations

import itertools
import logging
import warnings

import numpy as np
import pytest
import torch

import nlrn
from nlrn.files.images import Image, read_image, write_image
from nlrn.inference.devices import pick_device
from nlrn.restoration import Restorer
from pictures import picture


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4)])
def test_array_in_array_out(shape, dtype, tiny_grey):
    array = picture(shape, dtype)
    before = array.copy()
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    result = nlrn.denoise(array, sigma=0.1 * white, model=tiny_grey)
    assert (result.shape, result.dtype) == (array.shape, array.dtype)
    assert np.array_equal(array, before)
    assert not np.array_equal(result, array)
    if shape[-1] in (2, 4):
        assert np.array_equal(result[..., -1], array[..., -1])


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 9, 7), (4, 9, 7), (2, 1, 9, 7), (2, 3, 9, 7), (2, 4, 9, 7)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64])
def test_tensor_in_tensor_out(shape, dtype, tiny_grey):
    white = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    tensor = torch.from_numpy(picture(shape, "float64") * white).to(dtype)
    result = nlrn.denoise(tensor, sigma=0.1 * white, model=tiny_grey)
    assert (result.shape, result.dtype, result.device) == (tensor.shape, tensor.dtype, tensor.device)
    if shape[-3] == 4:
        assert torch.equal(result[..., -1:, :, :], tensor[..., -1:, :, :])


def test_all_kinds_agree(tiny_colour, tmp_path):
    array = picture((16, 20, 3))
    expected = nlrn.denoise(array, sigma=20, model=tiny_colour)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    assert np.array_equal(nlrn.denoise(tensor, sigma=20, model=tiny_colour).permute(1, 2, 0), expected)
    floats = nlrn.denoise(array.astype(np.float32) / 255, sigma=20 / 255, model=tiny_colour)
    assert np.array_equal(np.clip(np.rint(floats * 255), 0, 255), expected)
    write_image(Image(array, format="PNG"), tmp_path / "a.png")
    assert np.array_equal(nlrn.denoise(tmp_path / "a.png", sigma=20, model=tiny_colour), expected)
    module = nlrn.load_model(tiny_colour)
    scaled = (torch.from_numpy(array).permute(2, 0, 1)[None] / 255).float()
    direct = module(scaled, 20 / 255)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(np.clip(np.rint(direct * 255), 0, 255), expected)


def test_steps(tiny_grey):
    array = picture((8, 8))
    first, last = (nlrn.denoise(array, sigma=20, model=tiny_grey, steps=n) for n in (1, 2))
    assert not np.array_equal(first, last)
    assert np.array_equal(last, nlrn.denoise(array, sigma=20, model=tiny_grey))
    with pytest.raises(ValueError, match="can stop after 1, 2 steps, got steps=3"):
        nlrn.denoise(array, sigma=20, model=tiny_grey, steps=3)


def test_ensemble_commutes_with_turning(tiny_grey):
    array = picture((9, 12), "float32")
    options = {"sigma": 0.1, "model": tiny_grey, "ensemble": True}
    result = nlrn.denoise(array, **options)
    np.testing.assert_allclose(nlrn.denoise(np.rot90(array), **options), np.rot90(result), atol=1e-5)
    np.testing.assert_allclose(nlrn.denoise(array[:, ::-1], **options), result[:, ::-1], atol=1e-5)


def test_grey_model_on_colour_restores_each_channel(tiny_grey, caplog):
    array = picture((9, 7, 3))
    with caplog.at_level(logging.INFO, "nlrn"):
        result = nlrn.denoise(array, sigma=20, model=tiny_grey)
    assert "each colour channel is restored by itself" in caplog.text
    for c in range(3):
        assert np.array_equal(result[..., c], nlrn.denoise(array[..., c], sigma=20, model=tiny_grey))


def test_default_models():
    restorer = Restorer()
    assert restorer.array(picture((8, 8)), 20)[1].model == "nlrn-small-gray"
    assert restorer.array(picture((8, 8, 3)), 20)[1].model == "nlrn-small-color"


def test_any_callable_is_a_model():
    calls = []

    def model(image, sigma=None):
        calls.append((tuple(image.shape), sigma))
        return 1 - image

    array = picture((4, 5))
    assert np.array_equal(nlrn.denoise(array, sigma=51, model=model), 255 - array)
    assert calls == [((1, 1, 4, 5), pytest.approx(0.2))]
    with pytest.raises(ValueError, match="no steps to choose from"):
        nlrn.denoise(array, sigma=51, model=model, steps=2)


def test_auto_finds_the_level(caplog):
    clean = np.full((64, 64), 0.5, np.float32)
    noisy = clean + np.random.default_rng(0).normal(0, 0.1, clean.shape).astype(np.float32)
    with caplog.at_level(logging.INFO, "nlrn"):
        result = nlrn.denoise(noisy)
    assert "estimated noise level: 25" in caplog.text or "estimated noise level: 26" in caplog.text
    assert result.std() < 0.03


def test_auto_warns_of_clipped_noise(tiny_grey):
    noisy = np.clip(np.random.default_rng(0).normal(20, 40, (64, 64)), 0, 255).astype(np.uint8)
    with pytest.warns(UserWarning, match="clipped noise reads too low"):
        nlrn.denoise(noisy, model=tiny_grey)


def test_auto_below_16_pixels_asks_for_sigma(tiny_grey):
    with pytest.raises(ValueError, match="give sigma"):
        nlrn.denoise(picture((15, 40)), model=tiny_grey)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 5), np.uint8), "1 to 4 channels .* got 5"),
        (np.zeros((8,), np.uint8), "HxW or HxWxC"),
        (np.zeros((0, 8), np.uint8), "not empty"),
        (np.zeros((8, 8), bool), "integers or floats, got bool"),
        (np.zeros((8, 8), np.complex64), "integers or floats, got complex64"),
        (np.zeros((8, 8), object), "integers or floats, got object"),
        (np.full((8, 8), np.nan, np.float32), "NaN or infinite"),
        (torch.zeros(8, 8), "CHW or BCHW"),
        (torch.zeros(8, 8, 3), "1 to 4 channels, got 8"),
        (torch.zeros(1, 0, 8), "not empty"),
        (torch.zeros(1, 8, 8, dtype=torch.bool), "integers or floats, got bool"),
        (torch.full((1, 8, 8), float("inf")), "NaN or infinite"),
    ],
)
def test_refused_images(image, message, tiny_grey):
    with pytest.raises(ValueError, match=message):
        nlrn.denoise(image, sigma=0.1, model=tiny_grey)


def test_refused_arguments(tiny_grey, tiny_colour, tmp_path):
    array = picture((8, 8))
    with pytest.raises(TypeError, match="a Pillow image or a list of these, got list"):
        nlrn.denoise([[1, 2]], sigma=1)
    with pytest.raises(ValueError, match="output= writes the result of a path"):
        nlrn.denoise(array, sigma=1, output=tmp_path / "x.png")
    with pytest.raises(ValueError, match="data_range must be positive, got -1"):
        nlrn.denoise(array, sigma=1, model=tiny_grey, data_range=-1)
    with pytest.raises(ValueError, match="restores RGB images, this one is grey"):
        nlrn.denoise(array, sigma=1, model=tiny_colour)
    with pytest.raises(ValueError, match="no model and no weight file 'nope'"):
        nlrn.denoise(array, sigma=1, model="nope")


def test_file_to_file(tiny_grey, tmp_path):
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    write_image(Image(picture((9, 7), "float32"), format="TIFF"), source)
    assert nlrn.denoise(source, sigma=20, model=tiny_grey, output=target) == target
    assert np.array_equal(read_image(target).pixels, nlrn.denoise(source, sigma=20, model=tiny_grey))
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        nlrn.denoise(source, sigma=20, model=tiny_grey, output=target)
    nlrn.denoise(source, sigma=20, model=tiny_grey, output=target, overwrite=True)


def test_the_original_is_never_overwritten(tiny_grey, tmp_path):
    source = tmp_path / "a.png"
    write_image(Image(picture((9, 7)), format="PNG"), source)
    before = source.read_bytes()
    (tmp_path / "link.png").symlink_to(source)
    for output in (source, tmp_path / "link.png"):
        with pytest.raises(ValueError, match="the original is never modified"):
            nlrn.denoise(source, sigma=20, model=tiny_grey, output=output, overwrite=True)
    assert source.read_bytes() == before


def test_what_the_target_cannot_hold_is_told_before_the_work(tmp_path):
    def model(image, sigma=None):
        raise AssertionError("the work began")

    write_image(Image(picture((9, 7), "uint16"), format="PNG"), tmp_path / "a.png")
    with pytest.raises(ValueError, match="JPEG cannot hold uint16"):
        nlrn.denoise(tmp_path / "a.png", sigma=20, model=model, output=tmp_path / "b.jpg")


def test_alpha_of_a_file(tiny_colour, tmp_path):
    image = Image(picture((9, 7, 3)), alpha=picture((9, 7)), format="PNG")
    write_image(image, tmp_path / "a.png")
    result = nlrn.denoise(tmp_path / "a.png", sigma=20, model=tiny_colour)
    assert result.shape == (9, 7, 4)
    assert np.array_equal(result[..., 3], image.alpha)


def test_jpeg_is_outside_the_assumption(tiny_grey, tmp_path):
    write_image(Image(picture((32, 32)) // 2 + 60, format="JPEG"), tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match="noise of a camera JPEG is not white"):
        nlrn.denoise(tmp_path / "a.jpg", model=tiny_grey)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nlrn.denoise(tmp_path / "a.jpg", sigma=20, model=tiny_grey)


def test_every_image_of_a_batch_has_its_own_noise():
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(0.5, sigma, (1, 32, 32)) for sigma in (0.02, 0.2)]).astype(np.float32)
    batch = torch.from_numpy(values)
    together = nlrn.denoise(batch, model="nlrn-small-gray", steps=2)
    for image, result in zip(batch, together, strict=True):
        torch.testing.assert_close(result, nlrn.denoise(image, model="nlrn-small-gray", steps=2))
    _, report = Restorer("nlrn-small-gray", steps=2)(batch)
    assert report.estimated
    assert report.sigma == pytest.approx(0.11, rel=0.1)


def test_warnings_are_about_the_line_of_the_user(tiny_grey):
    clipped = np.clip(2.0 * picture((32, 32)) - 128, 0, 255).astype(np.uint8)
    for image in (clipped, torch.from_numpy(clipped)[None]):
        with pytest.warns(UserWarning, match="at the end of the range") as caught:
            nlrn.denoise(image, model=tiny_grey)
        assert caught[0].filename == __file__


def test_where_a_result_cannot_go_is_said_before_the_work(tiny_grey, tmp_path):
    write_image(Image(picture((9, 7))), tmp_path / "a.png")
    seen = []
    for output, error in (("", ValueError), ("nowhere/b.png", FileNotFoundError)):
        with pytest.raises(error, match=r"is a folder|does not exist"):
            nlrn.denoise(
                tmp_path / "a.png",
                sigma=5,
                model=tiny_grey,
                output=tmp_path / output,
                overwrite=True,
                progress=seen.append,
            )
    assert not seen


def test_a_model_that_is_none_of_ours(tiny_grey):
    """It may declare which channels and noise levels it knows."""

    class Darker(torch.nn.Module):
        info = nlrn.ModelInfo("darker", "denoise", channels=1, sigma_range=(0.0, 0.2))

        def forward(self, image, sigma=None):
            warnings.warn("dark", RuntimeWarning, stacklevel=1)
            assert image.shape[1] == 1
            return image * (1 - sigma)

    with pytest.warns(RuntimeWarning, match="dark"), pytest.warns(UserWarning, match=r"0\.\.51.*; using 51"):
        assert nlrn.denoise(np.full((20, 20, 3), 200, np.uint8), sigma=99, model=Darker()).max() == 160

    def hungry(image, sigma=None):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(MemoryError, match="out of memory restoring 20x16 pixels with function"):
        nlrn.denoise(np.zeros((16, 20), np.uint8), sigma=1, model=hungry)


def test_progress(tiny_grey):
    seen = []
    nlrn.denoise(picture((40, 12, 3)), sigma=20, model=tiny_grey, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="unknown device 'warp'"):
        pick_device("warp")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ValueError, match="PyTorch sees no CUDA GPU"):
            pick_device("cuda")


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_holds_60_db(precision):
    """float16 is what `denoise` uses on a GPU, computed here on the CPU on a small image."""
    from skimage.data import camera

    model = nlrn.load_model("nlrn-small-gray")
    clean = torch.from_numpy(camera()[100:164, 150:214] / 255.0).float()[None, None]
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    from nlrn.inference import restore

    exact = restore(model, noisy, 25 / 255)
    half = restore(model, noisy, 25 / 255, precision=precision)
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert -10 * torch.log10(((half - exact) ** 2).mean()) >= 60


def test_what_overflows_is_computed_again(tiny_grey, monkeypatch, caplog):
    from nlrn.restoration import running

    real, used = running.restore, []

    def overflowing(*args, precision, **kwargs):
        used.append(precision)
        result = real(*args, precision=precision, **kwargs)
        return result if precision is torch.float32 else result / 0

    monkeypatch.setattr(running, "restore", overflowing)
    image = np.random.default_rng(0).random((12, 10), dtype=np.float32)
    restored = nlrn.denoise(image, 0.1, model=tiny_grey, precision="bfloat16")
    assert used == [torch.bfloat16, torch.float32]
    assert np.array_equal(restored, nlrn.denoise(image, 0.1, model=tiny_grey))
    assert "bfloat16 overflowed" in caplog.text


def test_impossible_precisions(tiny_grey):
    image = np.zeros((8, 8), np.float32)
    with pytest.raises(ValueError, match="must be one of auto, float32, bfloat16, float16, got 'half'"):
        nlrn.denoise(image, 0.1, model=tiny_grey, precision="half")
    with pytest.raises(ValueError, match="float16 is for GPUs; on a CPU take float32 or bfloat16"):
        nlrn.denoise(image, 0.1, model=tiny_grey, device="cpu", precision="float16")


def test_estimate_of_the_time(tiny_grey, monkeypatch):
    assert 0 < Restorer(tiny_grey).estimate_seconds((64, 64)) < 5
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))  # every trial takes a second
    assert Restorer(tiny_grey).estimate_seconds((64, 64)) == 1
    assert Restorer(tiny_grey).estimate_seconds((6400, 64, 3)) == 150
    assert Restorer(tiny_grey).estimate_seconds((256, 256)) == 4
    assert Restorer(tiny_grey, ensemble=True).estimate_seconds((64, 64)) == 8


@pytest.mark.parametrize("kernel", [True, False])
def test_faster_settings(kernel, monkeypatch):
    monkeypatch.setattr("nlrn.restoration.estimate.has_native_kernel", lambda dtype: kernel)

    def faster(**settings):
        return Restorer("nlrn-small-gray", device="cpu", **settings).faster_settings((9, 9))

    precision = {"precision": "bfloat16"} if kernel else {}
    assert faster() == {**precision, "steps": 4, "device": "cuda"}
    assert faster(steps=2, ensemble=True) == {"ensemble": False, **precision, "device": "cuda"}
    assert faster(precision="bfloat16") == {"steps": 4, "device": "cuda"}
    for sigma in ("auto", 0.1):  # no model that is for other noise
        settings = Restorer(device="cpu").faster_settings((9, 9, 3), sigma)
        assert settings == {**precision, "steps": 4, "device": "cuda"}
