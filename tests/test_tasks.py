"""`nlrn.upscale` and `nlrn.dejpeg`: kinds, sizes, colours, refusals."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from skimage import data

import nlrn
from nlrn.files import exif
from nlrn.files.images import Image, read_image, write_image
from nlrn.models.weights_file import ModelError
from nlrn.models.zoo import MODELS
from nlrn.ops.color import rgb_to_ycbcr
from nlrn.ops.resize import bicubic_resize
from nlrn.restoration import Restorer
from nlrn.restoration.loaded import LoadedModels


def picture(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    values = 0.2 + 0.6 * np.random.default_rng(1).random(shape)
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    return (values * white).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_arrays(shape, dtype, scale, tiny_upscaler):
    array = picture(shape, dtype)
    white = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    if shape[-1] in (2, 4):
        # Soft alpha, which has no edges for the network.
        array[..., -1] = (np.linspace(0.3, 0.7, 9)[:, None] * np.ones(7) * white).astype(dtype)
    large = nlrn.upscale(array, scale, model=tiny_upscaler)
    assert (large.shape, large.dtype) == ((9 * scale, 7 * scale, *shape[2:]), array.dtype)
    if shape[-1] in (2, 4):
        alpha = bicubic_resize(torch.from_numpy(array[..., -1] / white), 9 * scale, 7 * scale).numpy()
        atol = 0.51 / white if white > 1 else 1e-6
        np.testing.assert_allclose(large[..., -1] / white, alpha.clip(0, 1), atol=atol)


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 9, 7), (4, 9, 7), (2, 3, 9, 7), (2, 4, 9, 7)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.bfloat16, torch.float32])
def test_tensors(shape, dtype, tiny_upscaler):
    white = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    tensor = torch.from_numpy(picture(shape, "float64") * white).to(dtype)
    large = nlrn.upscale(tensor, 2, model=tiny_upscaler)
    assert (large.shape, large.dtype) == ((*shape[:-2], 18, 14), dtype)


def test_luma_is_restored_and_chroma_is_bicubic(tiny_upscaler):
    array = picture((9, 7, 3), "float64")
    large = nlrn.upscale(array, 2, model=tiny_upscaler)
    wanted = bicubic_resize(torch.from_numpy(np.moveaxis(rgb_to_ycbcr(array), -1, 0)), 18, 14)
    y, cb, cr = np.moveaxis(rgb_to_ycbcr(large), -1, 0)
    np.testing.assert_allclose([cb, cr], wanted[1:], atol=1e-5)
    restored = nlrn.load_model(tiny_upscaler)(wanted[None, :1].float())[0, 0].numpy()
    np.testing.assert_allclose(y, restored, atol=1e-5)
    assert np.abs(y - wanted[0].numpy()).max() > 1e-3


def test_files(tiny_upscaler, tmp_path):
    """The new size is in the EXIF, and alpha is as large as the colours."""
    camera = {
        exif.PIXEL_X_DIMENSION: exif.Tag(3, struct.pack("<H", 12)),
        exif.PIXEL_Y_DIMENSION: exif.Tag(3, struct.pack("<H", 8)),
    }
    main = {exif.DESCRIPTION: exif.Tag(2, b"sea\0"), 33550: exif.Tag(12, struct.pack("<3d", 1, 1, 0))}
    block = exif.build(exif.Directories(main, camera))
    source = Image(picture((8, 12, 3)), alpha=picture((8, 12)), exif=block)
    write_image(source, tmp_path / "a.png")
    nlrn.upscale(tmp_path / "a.png", 3, model=tiny_upscaler, output=tmp_path / "b.png")
    large = read_image(tmp_path / "b.png")
    assert large.pixels.shape == (24, 36, 3)
    assert large.alpha.shape == (24, 36)
    found = exif.parse(large.exif)
    assert found.main == {exif.DESCRIPTION: main[exif.DESCRIPTION]}  # its place on a map is not where it was
    sizes = [int.from_bytes(found.camera[code].data, "little") for code in camera]
    assert sizes == [36, 24]
    assert nlrn.upscale(tmp_path / "a.png", 2, model=tiny_upscaler).shape == (16, 24, 4)


def test_dejpeg(tiny_dejpeg):
    array = picture((16, 20, 3))
    clean = nlrn.dejpeg(array, model=tiny_dejpeg)
    expected = nlrn.load_model(tiny_dejpeg)(torch.from_numpy(array).permute(2, 0, 1)[None] / 255)
    expected = np.clip(np.rint(255 * expected[0].permute(1, 2, 0).numpy()), 0, 255)
    assert np.abs(clean - expected).max() <= 1
    assert not np.array_equal(clean, array)


def test_refusals(tiny_grey, tiny_upscaler, tiny_dejpeg):
    array = picture((8, 8))
    for scale in (0, 1, 17, float("nan")):
        with pytest.raises(ValueError, match=f"scale must be above 1 and at most 16, got {scale}"):
            nlrn.upscale(array, scale, model=tiny_upscaler)
    with pytest.raises(ValueError, match="exactly one of scale, size and fit must be given, got none"):
        nlrn.upscale(array, model=tiny_upscaler)
    with pytest.raises(ValueError, match="must be given, got scale and fit"):
        nlrn.upscale(array, 2, fit=(20, 20), model=tiny_upscaler)
    with pytest.raises(ValueError, match="scale is for upscale and restore, not for denoise, got 2"):
        Restorer(scale=2)
    with pytest.raises(ModelError, match=r"tiny-1\.safetensors is a model for denoise, not for upscale"):
        nlrn.upscale(array, 2, model=tiny_grey)
    with pytest.raises(ModelError, match="is a model for upscale, not for dejpeg"):
        nlrn.dejpeg(array, model=tiny_upscaler)
    with pytest.raises(ModelError, match="is a model for dejpeg, not for denoise"):
        nlrn.denoise(array, 10, model=tiny_dejpeg)
    with pytest.raises(ValueError, match="restores RGB images, this one is grey"):
        nlrn.dejpeg(array, model=tiny_dejpeg)


def test_the_model_for_a_photograph():
    """Colour noise that nobody knows is a camera's; noise that is known is white."""
    restorer = Restorer()
    assert restorer.model_for(3)[1] == "nlrn-small-photo"
    assert restorer.model_for(3, 0.05)[1] == "nlrn-small-color"
    assert restorer.model_for(1)[1] == restorer.model_for(1, 0.05)[1] == "nlrn-small-gray"
    assert restorer.model_for(3, 0.2)[1] == "nlrn-color"
    assert LoadedModels(restorer.options, restorer.device).name_for(3, None, False, 0.2) == "nlrn-color"
    assert Restorer(task="upscale", scale=2).model_for(3)[1] == "nlrn-small-upscale"


def test_time_of_an_enlargement(tiny_upscaler, monkeypatch):
    monkeypatch.setattr("nlrn.restoration.unit.time.perf_counter", iter(range(100)).__next__)
    restorer = Restorer(tiny_upscaler, task="upscale", scale=4)
    assert restorer.estimate_seconds((128, 128, 3)) == 16  # of luma alone, 512x512


@pytest.mark.parametrize(
    "name",
    [name for name, entry in MODELS.items() if entry.task != "denoise"],
)
@pytest.mark.parametrize("levels", [(0.0, 0.1), (0.55, 0.95), (0.95, 1.0)], ids=["dark", "sky", "bright"])
def test_smooth_areas_stay_what_they_are(name, levels):
    """Networks of this kind may drift where there is nothing to see, such as a sky."""
    model = nlrn.load_model(name)
    rows = torch.linspace(*levels, 160)[:, None].expand(160, 160)
    sky = torch.stack([0.9 * rows, 0.95 * rows, rows])[None, : model.config.channels]
    assert (model(sky) - sky).abs().max() < 7 / 255


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.task == "denoise"])
@pytest.mark.parametrize("sigma", [0, 1, 3])
def test_little_noise_changes_little(name, sigma):
    """Drifting shows where there is next to nothing to remove, and in pictures larger than a crop."""
    model = nlrn.load_model(name)
    for picture in (data.astronaut(), data.coffee()):
        image = torch.from_numpy(picture[:300, :300] / np.float32(255)).permute(2, 0, 1)[None]
        image = image if model.config.channels == 3 else image.mean(1, keepdim=True)
        change = model(image, sigma / 255) - image
        assert change.square().mean().sqrt() < 2.5 / 255


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.task == "denoise"])
def test_light_noise_is_removed(name):
    """A network can unlearn it in favour of changing nothing, which keeps it from drifting."""
    model = nlrn.load_model(name)
    image = torch.from_numpy(data.astronaut()[:200, :200] / np.float32(255)).permute(2, 0, 1)[None]
    image = image if model.config.channels == 3 else image.mean(1, keepdim=True)
    noise = 5 / 255 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = model(image + noise, 5 / 255) - image
    assert error.norm() < 0.65 * noise.norm()


@pytest.mark.parametrize("scale", [2, 4])
def test_it_beats_bicubic(scale):
    from skimage.data import camera

    from nlrn.degradations.resize import low_resolution
    from nlrn.evaluation.metrics import psnr

    clean = torch.from_numpy(camera()[100:260, 130:290] / 255)[None]
    degraded = low_resolution(clean, scale)
    small = bicubic_resize(clean, 160 // scale, 160 // scale).clamp(0, 1)
    large = nlrn.upscale((255 * small[0]).round().byte().numpy(), scale)
    before, after = (
        psnr(x, 255 * clean[0].numpy()) for x in (255 * degraded[0].numpy(), large.astype(float))
    )
    assert after > before + 0.7


def test_it_removes_blocks():
    import io

    from PIL import Image as PillowImage
    from skimage.data import astronaut

    from nlrn.evaluation.metrics import psnr

    clean = astronaut()[:160, 150:310]
    for pixels in (clean, clean[..., 1]):
        buffer = io.BytesIO()
        PillowImage.fromarray(pixels).save(buffer, "JPEG", quality=10)
        compressed = read_image(buffer.getvalue()).pixels
        assert psnr(nlrn.dejpeg(compressed), pixels) > psnr(compressed, pixels) + 0.7
