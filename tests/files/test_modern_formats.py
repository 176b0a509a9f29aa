"""AVIF, HEIC, JPEG XL and JPEG 2000: depth, orientation, metadata, and what cannot be read."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from image_files import SRGB, exif_block, noise, saved, tags_of
from PIL import Image as PillowImage

from nlrn.files import exif
from nlrn.files.boxes import box, color_points
from nlrn.files.image import FORMATS
from nlrn.files.images import (
    Image,
    ImageError,
    check_writable,
    encode_image,
    image_size,
    read_image,
    write_image,
)
from nlrn.files.jpegxl_header import read_header
from nlrn.files.orientation import turned

Y, X = np.mgrid[:24, :36]
SMOOTH = np.stack([7 * X, 10 * Y, 4 * (X + Y)], -1).astype(np.uint8)
KINDS = {
    "grey": (SMOOTH[..., 0], None),
    "grey and alpha": (SMOOTH[..., 0], SMOOTH[..., 1]),
    "RGB": (SMOOTH, None),
    "RGB and alpha": (SMOOTH, SMOOTH[..., 1]),
}
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def heic(picture: PillowImage.Image, **options: object) -> bytes:
    package = pytest.importorskip("pillow_heif", reason="HEIC needs the package pillow-heif")
    buffer = io.BytesIO()
    package.from_pillow(picture).save(buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_avif_is_written_and_read(kind):
    pixels, alpha = KINDS[kind]
    data = encode_image(Image(pixels, alpha, exif=exif_block(3), icc=SRGB, xmp=XMP), "AVIF")
    read = read_image(data)
    assert image_size(data) == (36, 24)
    assert (read.pixels.ndim, read.pixels.dtype, read.format) == (pixels.ndim, np.uint8, "AVIF")
    assert np.abs(read.pixels.astype(int) - pixels).max() <= 6
    assert (read.alpha is None) == (alpha is None)
    assert alpha is None or np.abs(read.alpha.astype(int) - alpha).max() <= 6
    assert (read.icc, read.xmp, read.notes) == (SRGB, XMP, ())
    # The file turns the picture once: Pillow leaves the orientation to the file alone.
    assert b"irot" in data
    assert exif.parse(read.exif).orientation == 3
    assert tags_of(read.exif) == tags_of(exif_block(3))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["AVIF", "JXL", "HEIC"])
def test_the_orientation_is_applied_once(format_, orientation):
    """As a viewer shows it, a result lies as its input did."""
    source = Image(SMOOTH, exif=exif_block(orientation), lossless=False)
    if format_ == "HEIC":
        data = heic(PillowImage.fromarray(SMOOTH), quality=100, exif=exif_block(orientation))
    else:
        data = encode_image(source, format_, quality=100)
    read = read_image(data)
    shown = turned(read.pixels, exif.parse(read.exif or b"").orientation)
    expected = turned(SMOOTH, orientation)
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).max() <= 12
    if format_ != "AVIF":  # whose pixels lie as they are stored
        assert image_size(data) == expected.shape[1::-1]


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_deep_avif(kind, bits):
    pixels, alpha = KINDS[kind]
    parts = pixels if pixels.ndim == 3 else pixels[..., None]
    stored = parts if alpha is None else np.concatenate([parts, alpha[..., None]], -1)
    stored = np.squeeze(stored.astype(np.uint16) << (bits - 8))
    image = read_image(imagecodecs.avif_encode(stored, level=100, bitspersample=bits))
    white = (1 << bits) - 1
    assert np.array_equal(image.pixels, np.rint((pixels.astype(float) * 2 ** (bits - 8)) * 65535 / white))
    assert image.notes == (f"values of 0..{white} scaled to 0..65535",)
    with pytest.raises(ImageError, match="AVIF cannot hold uint16 pixels; PNG"):
        encode_image(image, "AVIF")
    assert np.array_equal(read_image(encode_image(image)).pixels, image.pixels)  # as PNG


def test_an_avif_animation_is_refused():
    frames = [PillowImage.fromarray(noise((16, 16, 3), seed=seed)) for seed in range(3)]
    data = saved(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="an animated AVIF file of 3 frames"):
        read_image(data)


def test_colours_by_code_points():
    """An AVIF file of BT.2020 with PQ; a PNG file says the same in a chunk."""
    data = saved(PillowImage.fromarray(SMOOTH), "AVIF", quality=90)
    place = data.index(b"colrnclx") + 8
    image = read_image(data[:place] + bytes((0, 9, 0, 16)) + data[place + 4 :])
    assert image.color_chunks == ((b"cICP", bytes((9, 16, 0, 1))),)
    assert read_image(encode_image(image)).color_chunks == image.color_chunks
    assert read_image(data).color_chunks == ()
    assert color_points(1, 13) == color_points(2, 2) == ()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", KINDS)
def test_jpeg_xl_without_loss(kind, dtype):
    pixels, alpha = KINDS[kind]
    factor = 1 if dtype == "uint8" else 257
    pixels = pixels.astype(dtype) * np.dtype(dtype).type(factor)
    alpha = None if alpha is None else alpha.astype(dtype) * np.dtype(dtype).type(factor)
    data = encode_image(Image(pixels, alpha, exif=exif_block(1), xmp=XMP, resolution=(72.0, 72.0)), "JXL")
    read = read_image(data)
    assert np.array_equal(read.pixels, pixels)
    assert (read.alpha is None) == (alpha is None)
    assert alpha is None or np.array_equal(read.alpha, alpha)
    assert (read.xmp, read.lossless, read.notes, read.color_chunks) == (XMP, True, (), ())
    main, camera, gps = tags_of(exif_block(1))
    main.pop(0x0112)
    assert tags_of(read.exif) == (main, camera, gps)


def test_sixteen_bit_of_jpeg_xl_are_not_linear():
    """The encoder names them linear, in which viewers would show them too bright."""
    named = imagecodecs.jpegxl_encode(SMOOTH.astype(np.uint16), lossless=True)
    assert read_image(bytes(named)).color_chunks == ((b"cICP", bytes((1, 8, 0, 1))),)
    assert read_image(encode_image(Image(SMOOTH.astype(np.uint16)), "JXL")).color_chunks == ()


def test_the_quality_of_lossy_jpeg_xl():
    image = Image(noise((64, 64, 3)), lossless=False)
    sizes = [len(encode_image(image, "JXL", quality=quality)) for quality in (100, 90, 50, 20, 5)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 5
    assert not read_image(encode_image(image, "JXL", quality=90)).lossless


def test_a_profile_without_room_in_jpeg_xl_is_told(tmp_path: Path):
    (note,) = write_image(Image(SMOOTH, icc=SRGB), tmp_path / "a.jxl")
    assert note == "JXL holds no colour profile here: it is left out"


def test_packed_metadata_of_jpeg_xl():
    """As cjxl writes it, in boxes that are compressed with Brotli."""
    data = encode_image(Image(SMOOTH, exif=exif_block(1), xmp=XMP), "JXL")
    plain = read_image(data)
    start = data.index(b"Exif") - 4
    size = int.from_bytes(data[start : start + 4], "big")
    packed = box(b"brob", b"Exif" + imagecodecs.brotli_encode(data[start + 8 : start + size]))
    assert read_image(data[:start] + packed + data[start + size :]).exif == plain.exif
    bomb = box(b"brob", b"xml " + imagecodecs.brotli_encode(bytes(1 << 25)))
    with pytest.raises(ImageError, match="damaged"):
        read_image(data[:start] + bomb + data[start:])


def bits_of(*fields: tuple[int, int]) -> bytes:
    """A codestream that begins with these numbers, each with its bits, the lowest first."""
    value = place = 0
    for number, count in fields:
        value |= number << place
        place += count
    return b"\xff\x0a" + value.to_bytes(place // 8 + 16, "little")


# 8x16 pixels; not as usual; an orientation of 6 and no more; integers of 10 bit; no extra channels.
HEAD = [(1, 1), (1, 5), (0, 3), (0, 5), (0, 1), (1, 1), (5, 3), (0, 3), (0, 1), (1, 2), (0, 1), (0, 2)]


def test_the_header_of_jpeg_xl():
    """Against the specification, field by field."""
    p3 = read_header(
        bits_of(*HEAD, (0, 1), (0, 1), (0, 1), (0, 2), (1, 2), (2, 2), (9, 4), (0, 1), (2, 2), (11, 4))
    )
    assert (p3.height, p3.width, p3.bits, p3.orientation) == (16, 8, 10, 6)
    assert (p3.lossy_colors, p3.animated, p3.profile, p3.extra) == (False, False, False, ())
    assert p3.color_chunks == ((b"cICP", bytes((12, 13, 0, 1))),)  # Display P3
    power = read_header(bits_of(*HEAD, (0, 1), (0, 1), (0, 1), (0, 2), (1, 2), (1, 2), (1, 1), (4545454, 24)))
    assert not power.described
    assert read_header(bits_of((1, 1), (0, 5), (4, 3), (1, 1))).width == 12  # 3:2 of 8


def test_a_profile_of_lossy_jpeg_xl_is_refused():
    """Its decoder would give linear values without a word."""
    with pytest.raises(ImageError, match="an own profile, which cannot be read"):
        read_image(bits_of(*HEAD, (1, 1), (0, 1), (1, 1), (0, 2)))


@pytest.mark.parametrize("form", ["jp2", "j2k"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_2000(bits, kind, form):
    pixels, alpha = KINDS[kind]
    parts = pixels if pixels.ndim == 3 else pixels[..., None]
    stored = parts if alpha is None else np.concatenate([parts, alpha[..., None]], -1)
    stored = np.squeeze(stored.astype(np.uint8 if bits == 8 else np.uint16) << (bits - 8))
    data = imagecodecs.jpeg2k_encode(stored, level=0, codecformat=form, bitspersample=bits, reversible=True)
    image = read_image(bytes(data))
    full = pixels.astype(float) * 2 ** (bits - 8) * (1 if bits == 8 else 65535 / ((1 << bits) - 1))
    assert np.array_equal(image.pixels, np.rint(full))
    assert (image.alpha is None) == (alpha is None)
    assert image_size(bytes(data)) == (36, 24)
    assert bool(image.notes) == (bits == 12)


def test_jpeg_2000_of_four_bit():
    stored = (SMOOTH[..., 0] >> 4).astype(np.uint8)
    data = imagecodecs.jpeg2k_encode(stored, level=0, codecformat="jp2", bitspersample=4, reversible=True)
    image = read_image(bytes(data))
    assert np.array_equal(image.pixels, 17 * stored)
    assert image.notes == ("values of 0..15 scaled to 0..255",)


def test_metadata_of_jpeg_2000():
    data = imagecodecs.jpeg2k_encode(SMOOTH, level=0, codecformat="jp2")
    place = data.index(b"jp2c") - 4
    xmp = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP
    extra = box(b"uuid", b"JpgTiffExif->JP2" + exif_block(6)) + box(b"uuid", xmp)
    image = read_image(data[:place] + extra + data[place:])
    assert (image.exif, image.xmp) == (exif_block(6), XMP)
    assert image.resolution == (300, 300)
    colr = data.index(b"colr") - 4
    profile = box(b"colr", b"\2\0\0" + SRGB)
    size = int.from_bytes(data[colr : colr + 4], "big")
    header = data.index(b"jp2h") - 4
    length = int.from_bytes(data[header : header + 4], "big") + len(profile) - size
    changed = (
        data[:header] + length.to_bytes(4, "big") + data[header + 4 : colr] + profile + data[colr + size :]
    )
    assert read_image(changed).icc == SRGB


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_heic(mode):
    pixels = np.dstack([SMOOTH, SMOOTH[..., 1]])
    data = heic(
        PillowImage.fromarray(pixels).convert(mode), quality=95, exif=exif_block(1), icc_profile=SRGB, xmp=XMP
    )
    image = read_image(data)
    assert (image.format, image.icc, image.xmp, image.notes) == ("HEIC", SRGB, XMP, ())
    assert (image.alpha is not None, image.pixels.ndim) == (mode == "RGBA", 2 if mode == "L" else 3)
    if mode != "L":
        assert np.abs(image.pixels.astype(int) - SMOOTH).mean() < 3
    main, camera, gps = tags_of(exif_block(1))
    main.pop(0x0112)
    assert tags_of(image.exif) == (main, camera, gps)
    with pytest.raises(ImageError, match="HEIC files are only read"):
        check_writable(image, "a.heic")


def test_heic_of_ten_bit():
    package = pytest.importorskip("pillow_heif", reason="HEIC needs the package pillow-heif")
    ramp = np.repeat(np.linspace(0, 65535, 64).astype(np.uint16)[None, :, None], 32, 0).repeat(3, 2)
    buffer = io.BytesIO()
    package.from_bytes("RGB;16", (64, 32), ramp.tobytes()).save(buffer, quality=-1)
    image = read_image(buffer.getvalue())
    assert image.pixels.dtype == np.uint16
    assert image.notes == ("values of 0..1023 scaled to 0..65535",)
    assert np.abs(image.pixels.astype(int) - ramp).max() < 800
    assert image.pixels.max() > 65000


def test_only_the_main_picture_of_heic(tmp_path: Path):
    package = pytest.importorskip("pillow_heif", reason="HEIC needs the package pillow-heif")
    file = package.from_pillow(PillowImage.fromarray(noise((64, 64))))
    file.add_from_pillow(PillowImage.fromarray(SMOOTH))
    file.save(tmp_path / "a.heic", primary_index=1, quality=95)
    image = read_image(tmp_path / "a.heic")
    assert image.pixels.shape == SMOOTH.shape
    assert "only the main picture" in image.notes[0]


@pytest.mark.parametrize(
    ("module", "extra", "data"),
    [
        ("pillow_heif", "heic", box(b"ftyp", b"heic\0\0\0\0mif1heic")),
        ("astropy.io.fits", "fits", b"SIMPLE  =                    T"),
    ],
)
def test_a_missing_extra_is_named(module, extra, data, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError, match=rf"needs the package \S+: python -m pip install 'nlrn\[{extra}\]'"):
        read_image(data)


def test_other_files_of_boxes_are_named():
    with pytest.raises(ImageError, match="is a video"):
        read_image(box(b"ftyp", b"isom\0\0\0\0isom"))


def samples() -> dict[str, bytes]:
    found = {
        "AVIF": encode_image(Image(SMOOTH, exif=exif_block()), "AVIF"),
        "JXL": encode_image(Image(SMOOTH, exif=exif_block()), "JXL"),
        "JPEG2000": bytes(imagecodecs.jpeg2k_encode(SMOOTH, level=0, codecformat="jp2")),
    }
    if "pillow_heif" in sys.modules or _installed("pillow_heif"):
        found["HEIC"] = heic(PillowImage.fromarray(SMOOTH), quality=90)
    return found


def _installed(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def test_truncated_files_are_one_line():
    for name, data in samples().items():
        for length in (12, 13, 16, 30, 60, len(data) // 3, len(data) // 2, len(data) - len(data) // 8):
            with pytest.raises(ImageError) as caught:
                read_image(data[:length])
            assert "\n" not in str(caught.value), name


def test_the_name_says_another_format(tmp_path: Path):
    (tmp_path / "a.heic").write_bytes(encode_image(Image(SMOOTH), "AVIF"))
    assert read_image(tmp_path / "a.heic").notes == ("this is an AVIF file, though it is named .heic",)


@pytest.mark.parametrize("format_", ["AVIF", "JXL"])
def test_one_pixel_and_long_metadata(format_):
    block = exif.build(replace(exif.parse(exif_block(1)), camera={37500: exif.Tag(7, bytes(300_000))}))
    data = encode_image(Image(np.full((1, 1, 3), 7, np.uint8), exif=block), format_)
    read = read_image(data)
    assert read.pixels.shape == (1, 1, 3)
    assert len(read.exif) > 300_000


def test_the_page_names_every_format():
    """What the web page lets people choose is what is read."""
    page = (Path(sys.modules["nlrn"].__file__).parent / "app" / "static" / "index.html").read_text()
    words = {"WEBP": "WebP", "JXL": "JPEG XL", "JPEG2000": "JPEG 2000"}
    for name, format_ in FORMATS.items():
        assert words.get(name, name) in page
        if name not in ("PNG", "JPEG", "WEBP", "BMP", "GIF"):
            assert all(f"{suffix}" in page for suffix in format_.suffixes), name
