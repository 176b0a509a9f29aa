"""Files of several pages and animations: read and written page by page, with what describes them."""

from __future__ import annotations

import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import weakref
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from image_files import SRGB, exif_block, noise, saved, tiff
from PIL import Image as PillowImage

import nlrn
from nlrn.files import tiff_writer
from nlrn.files.images import Image, ImageError, encode_image, read_image
from nlrn.files.pages import Pages, check_holds_pages, parse_ranges, read_pages, write_pages

STACK = noise((3, 2, 12, 15), "uint16")
PLANES = STACK.reshape(6, 12, 15)
SAID = {"axes": "ZCYX", "unit": "um", "spacing": 0.5, "finterval": 0.1}
SIZE = {"PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm", "PhysicalSizeZ": 0.5, "PhysicalSizeZUnit": "µm"}


def without_directories(data: bytes) -> bytes:
    """An ImageJ stack as ImageJ writes it beyond 4 GB: only the first page has a directory."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        struct.pack_into(file.byteorder + "I", changed, page.offset + 2 + 12 * len(page.tags), 0)
    return bytes(changed)


def imagej() -> bytes:
    labels = [f"plane {i}" for i in range(6)]
    return tiff(
        STACK, imagej=True, resolution=(10, 20), metadata={**SAID, "Labels": labels, "Ranges": (1.0, 9.0)}
    )


STACKS = {
    "plain": lambda: tiff(PLANES, photometric="minisblack", metadata=None),
    "tifffile": lambda: tiff(STACK, photometric="minisblack", metadata={"axes": "ZCYX"}),
    "tifffile, one directory": lambda: tiff(
        STACK, photometric="minisblack", metadata={"axes": "ZCYX", "truncate": True}
    ),
    "BigTIFF": lambda: tiff(STACK, photometric="minisblack", bigtiff=True, byteorder=">"),
    "ImageJ": imagej,
    "ImageJ, one directory": lambda: without_directories(imagej()),
    "OME": lambda: tiff(STACK, photometric="minisblack", ome=True, metadata={"axes": "ZCYX", **SIZE}),
    "RGB": lambda: tiff(noise((6, 9, 8, 3)), photometric="rgb", compression="zlib"),
    "RGB in planes": lambda: tiff(noise((6, 3, 9, 8)), photometric="rgb", planarconfig="separate"),
    "alpha": lambda: tiff(noise((6, 9, 8, 4)), photometric="rgb", extrasamples=["unassalpha"]),
    "float": lambda: tiff(noise((6, 9, 8), "float32"), photometric="minisblack"),
}


def written(pages: Pages, path: Path) -> Path:
    write_pages(pages, path, pages)
    return path


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "bytes"])
def test_a_stack_keeps_its_pages_axes_and_description(kind, from_file, tmp_path: Path):
    data = STACKS[kind]()
    (tmp_path / "a.tif").write_bytes(data)
    with read_pages(tmp_path / "a.tif" if from_file else data) as pages:
        assert len(pages) == 6
        assert pages.notes == ()
        written(pages, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as before, tifffile.TiffFile(tmp_path / "b.tif") as after:
        expected, found = before.series[0].asarray(), after.series[0].asarray()
        if kind == "RGB in planes":
            expected = np.moveaxis(expected, 1, -1)
        assert np.array_equal(found, expected)
        assert found.dtype == expected.dtype
        assert after.series[0].axes == before.series[0].axes.replace("SYX", "YXS")
        assert after.imagej_metadata == before.imagej_metadata
        assert after.ome_metadata == before.ome_metadata
        assert after.pages[0].tags["XResolution"].value == before.pages[0].tags["XResolution"].value
        assert len(after.pages) == 6


def test_pixels_of_imagej_stand_together(tmp_path: Path):
    """ImageJ does not look at later directories, but behind the first plane."""
    with read_pages(imagej()) as pages:
        written(pages, tmp_path / "b.tif")
    alone = without_directories((tmp_path / "b.tif").read_bytes())
    with tifffile.TiffFile(io.BytesIO(alone)) as file:
        assert np.array_equal(file.series[0].asarray(), STACK)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "ImageJ",
            {
                "images": 3,
                "slices": 3,
                "unit": "um",
                "spacing": 0.5,
                "Labels": ["plane 0", "plane 2", "plane 5"],
            },
        ),
        ("ImageJ, one directory", {"images": 3, "Labels": ["plane 0", "plane 2", "plane 5"]}),
        ("plain", None),
        ("tifffile", None),
    ],
)
def test_a_part_of_a_stack(kind, said, tmp_path: Path):
    with read_pages(STACKS[kind](), parse_ranges("6,1,3")) as pages:
        assert len(pages) == 3
        written(pages, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert np.array_equal(file.series[0].asarray().squeeze(), PLANES[[0, 2, 5]])
        assert len(file.series) == 1
        for name, value in (said or {}).items():
            assert file.imagej_metadata[name] == value


@pytest.mark.parametrize("axis", "ZT")
def test_a_part_of_an_ome_stack_of_one_axis(axis, tmp_path: Path):
    data = tiff(PLANES, photometric="minisblack", ome=True, metadata={"axes": f"{axis}YX", **SIZE})
    with read_pages(data, parse_ranges("2-4")) as pages:
        assert pages.notes == ()
        written(pages, tmp_path / "b.ome.tif")
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as file:
        assert file.series[0].axes == f"{axis}YX"
        assert np.array_equal(file.series[0].asarray(), PLANES[1:4])
        assert 'PhysicalSizeX="0.1"' in file.ome_metadata


def test_a_part_of_an_ome_stack_of_several_axes_says_what_is_lost():
    with read_pages(STACKS["OME"](), parse_ranges("2-4")) as pages:
        assert pages.notes == ("the OME-XML, which describes planes that are not chosen, is left out",)
        assert b"<OME" not in (pages[0].exif or b"")


def test_a_part_of_an_imagej_stack_of_several_axes_says_what_is_lost():
    with read_pages(STACKS["ImageJ"](), parse_ranges("2-4")) as pages:
        assert any("ImageJ counts them as slices" in note for note in pages.notes)
    one_axis = tiff(PLANES, imagej=True, photometric="minisblack", metadata={"axes": "TYX"})
    with read_pages(one_axis, parse_ranges("2-4")) as pages:
        assert pages.notes == ()


@pytest.mark.parametrize("kind", ["ImageJ", "OME", "tifffile"])
def test_channels_are_known(kind):
    with read_pages(STACKS[kind]()) as pages:
        assert [pages.group(i)[0] for i in range(6)] == [0, 1, 0, 1, 0, 1]
    with read_pages(STACKS[kind](), parse_ranges("2-4")) as pages:
        assert [pages.group(i)[0] for i in range(3)] == [1, 0, 1]


def test_pages_of_different_kinds(tmp_path: Path):
    parts = [noise((9, 8)), noise((4, 5, 3)), noise((9, 8), "uint16"), noise((3, 3), "float32")]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, part in enumerate(parts):
            about = {
                "description": f"page {number}",
                "resolution": (number + 1, number + 1),
                "resolutionunit": 2,
            }
            file.write(part, photometric="rgb" if part.ndim == 3 else "minisblack", metadata=None, **about)
    with read_pages(tmp_path / "a.tif") as pages:
        assert len({pages.group(i) for i in range(4)}) == 4
        written(pages, tmp_path / "b.tif")
    with read_pages(tmp_path / "a.tif", parse_ranges("2-")) as pages:
        written(pages, tmp_path / "c.tif")
    for name, expected in (("b.tif", parts), ("c.tif", parts[1:])):
        with tifffile.TiffFile(tmp_path / name) as file:
            for page, part in zip(file.pages, expected, strict=True):
                number = next(i for i, one in enumerate(parts) if one is part)
                assert np.array_equal(page.asarray(), part)
                assert page.description == f"page {number}"
                assert page.tags["XResolution"].value == (number + 1, 1)


def test_palettes_and_cmyk_in_later_pages(tmp_path: Path):
    first = PillowImage.fromarray(noise((9, 8, 3))).quantize(16)
    others = [first.rotate(180), PillowImage.fromarray(noise((9, 8, 4)), "CMYK")]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    with read_pages(tmp_path / "a.tif") as pages:
        found = list(pages)
    assert np.array_equal(found[0].pixels, np.array(first.convert("RGB")))
    assert np.array_equal(found[1].pixels, np.array(others[0].convert("RGB")))
    assert np.array_equal(found[2].pixels, np.array(others[1].convert("RGB")))
    assert "CMYK" in found[2].notes[0]


def test_reduced_copies_are_left_out_with_a_note(tmp_path: Path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in PLANES[:2]:
            file.write(plane, metadata=None)
            file.write(plane[::2, ::2], metadata=None, subfiletype=1)
    with read_pages(tmp_path / "a.tif") as pages:
        assert [page.pixels.shape for page in pages] == [(12, 15)] * 2
        assert "reduced copies" in pages.notes[0]


FRAMES = [PillowImage.fromarray(noise((9, 8, 3), seed=i)) for i in range(4)]
TIMES = [100, 50, 33, 70]
KEPT = {"exif": exif_block(), "icc_profile": SRGB}
ANIMATIONS = {
    "PNG": {"duration": TIMES, "loop": 2, **KEPT},
    "WEBP": {"duration": TIMES, "loop": 2, "lossless": True, "exact": True, **KEPT},
    "GIF": {"duration": [100, 50, 30, 70], "loop": 1},
}


def frames_of(data: bytes) -> tuple[list[np.ndarray], list[float], dict]:
    """The frames as Pillow shows them, which is not how they are read here."""
    picture = PillowImage.open(io.BytesIO(data))
    found, times = [], []
    for index in range(picture.n_frames):
        picture.seek(index)
        found.append(np.array(picture.convert("RGBA")))
        times.append(picture.info["duration"])
    return found, times, picture.info


@pytest.mark.parametrize("target", ["PNG", "WEBP"])
@pytest.mark.parametrize("source", ANIMATIONS)
def test_an_animation_keeps_frames_and_timing(source, target, tmp_path: Path):
    data = saved(FRAMES[0], source, save_all=True, append_images=FRAMES[1:], **ANIMATIONS[source])
    path = tmp_path / f"b.{target.lower()}"
    with read_pages(data) as pages:
        assert len(pages) == 4
        written(pages, path)
    expected, times, about = frames_of(data)
    found, kept, described = frames_of(path.read_bytes())
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert kept == pytest.approx(times)
    assert described["loop"] == 2  # one repetition of a GIF is two times
    for name in ("exif", "icc_profile"):
        assert described.get(name, b"").removeprefix(b"Exif\0\0") == about.get(name, b"").removeprefix(
            b"Exif\0\0"
        )


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P"])
def test_frames_of_other_kinds(mode, tmp_path: Path):
    frames = [PillowImage.fromarray(noise((9, 8, 4), seed=i)).convert(mode) for i in range(3)]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=40)
    with read_pages(data) as pages:
        written(pages, tmp_path / "b.png")
    for found, expected in zip(
        frames_of((tmp_path / "b.png").read_bytes())[0], frames_of(data)[0], strict=True
    ):
        assert np.array_equal(found, expected)


def test_differences_of_frames_are_shown_whole(tmp_path: Path):
    """A GIF stores what changes; a restored frame is a picture of its own."""
    still, moved = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)
    moved[5:8, 6:9] = (255, 0, 0)
    data = saved(
        PillowImage.fromarray(still), "GIF", save_all=True, append_images=[PillowImage.fromarray(moved)]
    )
    with read_pages(data) as pages:
        assert np.array_equal(pages[1].pixels, moved)
        assert np.array_equal(pages[0].pixels, still)


def test_a_still_picture_beside_the_frames_is_no_frame():
    data = saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:], default_image=True)
    with read_pages(data) as pages:
        assert [np.array_equal(p.pixels, np.array(f)) for p, f in zip(pages, FRAMES[1:], strict=True)] == [
            True
        ] * 3
        assert "still picture" in pages.notes[0]


@pytest.mark.parametrize("milliseconds", [0, 1, 33.3, 1000 / 24, 70_000, 65_535_000])
def test_times_of_frames(milliseconds, tmp_path: Path):
    with read_pages(saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:], duration=40)) as pages:
        write_pages((replace(p, milliseconds=milliseconds) for p in pages), tmp_path / "b.png", pages)
    assert frames_of((tmp_path / "b.png").read_bytes())[1] == pytest.approx([milliseconds] * 4, rel=1e-3)


def test_timing_in_a_tiff_is_left_out_with_a_note(tmp_path: Path):
    data = saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:])
    with read_pages(data) as pages:
        assert "timing" in write_pages(pages, tmp_path / "b.tif", pages)[0]
    assert np.array_equal(tifffile.imread(tmp_path / "b.tif"), np.stack([np.array(f) for f in FRAMES]))


@pytest.mark.parametrize(
    ("kind", "format_", "words"),
    [
        ("plain", "PNG", "PNG cannot hold 6 pages; TIFF can"),
        ("plain", "JPEG", "JPEG cannot hold 6 pages; TIFF can"),
        ("animation", "BMP", "BMP cannot hold an animation of 4 frames; PNG, TIFF or WEBP can"),
    ],
)
def test_formats_without_room_are_named(kind, format_, words):
    animation = saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:])
    with (
        read_pages(animation if kind == "animation" else STACKS[kind]()) as pages,
        pytest.raises(ImageError, match=words),
    ):
        check_holds_pages(pages, format_)


def test_one_page_is_a_single_image(tmp_path: Path):
    with read_pages(STACKS["plain"](), parse_ranges("2")) as pages:
        check_holds_pages(pages, "PNG")
        assert np.array_equal(pages[0].pixels, PLANES[1])
    image = Image(noise((4, 5)), milliseconds=None)
    (tmp_path / "a.tif").write_bytes(encode_image(image, "PNG"))
    with read_pages(tmp_path / "a.tif") as pages:
        assert pages[0].notes == read_image(tmp_path / "a.tif").notes != ()


@pytest.mark.parametrize("text", ["", "0", "3-1", "a", "1,,2", "-3", "1 2", "1-2-3", "²", "9" * 30])
def test_numbers_of_pages_that_are_none(text):
    with pytest.raises(ValueError, match="pages must be"):
        parse_ranges(text)


def test_pages_that_are_not_there():
    with pytest.raises(ImageError, match="has 6 pages, and page 7 is asked for"):
        read_pages(STACKS["plain"](), parse_ranges("1,7"))
    with pytest.raises(ImageError, match="has 1 page, and page 2"):
        read_pages(encode_image(Image(noise((4, 5)))), parse_ranges("2"))


def in_a_circle() -> bytes:
    data = bytearray(STACKS["plain"]())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        last = file.pages[5].aspage()
        struct.pack_into("<I", data, last.offset + 2 + 12 * len(last.tags), file.pages[1].offset)
    return bytes(data)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(share * len(data))]


def without_strips_of_page_3() -> bytes:
    data = bytearray(STACKS["plain"]())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        data[file.pages[2].aspage().tags["StripOffsets"].valueoffset + 3] = 0x7F
    return bytes(data)


def without_the_last_page() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for plane in PLANES[:3]:
            file.write(plane, contiguous=False, metadata=None)
    with tifffile.TiffFile(io.BytesIO(buffer.getvalue())) as file:
        return buffer.getvalue()[: file.pages[2].aspage().offset]


def with_a_wrong_link() -> bytes:
    data = bytearray(tiff(PLANES[0], metadata=None))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        struct.pack_into("<I", data, file.pages[0].offset + 2 + 12 * len(file.pages[0].tags), 1 << 20)
    return bytes(data)


def test_one_page_with_a_wrong_link_is_read_with_a_note():
    with read_pages(with_a_wrong_link()) as pages:
        assert len(pages) == 1
        assert "names a second page beyond its end" in pages[0].notes[0]


BROKEN = {
    "the last page": (without_the_last_page, "page 3 should begin beyond its end"),
    "all but three planes": (lambda: cut(imagej(), 0.4), "should have 6 pages and has fewer"),
    "circle": (in_a_circle, "go in a circle"),
    "no planes behind": (
        lambda: cut(without_directories(imagej()), 0.7),
        "should have 6 pages and has fewer",
    ),
    "strips": (without_strips_of_page_3, "page 3 is truncated"),
    "animated PNG": (
        lambda: cut(saved(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), 0.7),
        "truncated",
    ),
    "animated WebP": (
        lambda: cut(saved(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:], lossless=True), 0.7),
        "damaged",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_one_line_and_leave_nothing(case, tmp_path: Path):
    make, words = BROKEN[case]
    (tmp_path / "a.tif").write_bytes(make())
    with pytest.raises(ImageError, match=words) as caught, read_pages(tmp_path / "a.tif") as pages:
        written(pages, tmp_path / f"b.{'tif' if pages.loop is None else 'png'}")
    assert str(caught.value).startswith(str(tmp_path / "a.tif"))
    assert os.listdir(tmp_path) == ["a.tif"]


def test_planes_that_imagej_counts_and_are_not_there(tmp_path: Path):
    """Programs that take a plane out of a stack leave its description as it was."""
    one = tiff(PLANES[0], description="ImageJ=1.54f\nimages=6\nslices=6\n", metadata=None)
    with read_pages(one) as pages:
        assert pages[0].notes == ("ImageJ counts 6 planes, and the file has 1",)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for index, plane in enumerate(PLANES[:2]):
            said = "ImageJ=1.54f\nimages=6\nslices=6\n" if not index else None
            file.write(plane, description=said, metadata=None, compression="zlib")
    with read_pages(tmp_path / "a.tif") as pages:
        assert pages.notes == ("ImageJ counts 6 planes, and the file has 2",)


def test_an_error_halfway_keeps_the_old_file(tmp_path: Path):
    def pages_and_an_error(pages: Pages):
        yield pages[0]
        raise MemoryError

    (tmp_path / "b.tif").write_text("old")
    with read_pages(imagej()) as pages, pytest.raises(MemoryError):
        write_pages(pages_and_an_error(pages), tmp_path / "b.tif", pages, overwrite=True)
    assert (tmp_path / "b.tif").read_text() == "old"
    assert os.listdir(tmp_path) == ["b.tif"]


KILLED = """
import os, signal, sys
from nlrn.files.pages import read_pages, write_pages
def dying(pages):
    for index, page in enumerate(pages):
        if index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        yield page
with read_pages(sys.argv[1]) as pages:
    write_pages(dying(pages), sys.argv[2], pages)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_kill_leaves_no_file_of_the_name(tmp_path: Path):
    (tmp_path / "a.tif").write_bytes(imagej())
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.tif", tmp_path / "b.tif"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "b.tif").exists()


@pytest.mark.parametrize("kind", ["plain", "ImageJ", "PNG", "WEBP", "GIF"])
def test_only_a_page_or_two_are_in_memory(kind, tmp_path: Path):
    if kind in STACKS:
        data, name = STACKS[kind](), "b.tif"
    else:
        data, name = saved(FRAMES[0], kind, save_all=True, append_images=FRAMES[1:] * 3, duration=50), "b.png"
    alive, most = weakref.WeakSet(), 0

    def watched(pages: Pages):
        nonlocal most
        for page in pages:
            alive.add(page)
            most = max(most, len(alive))
            yield page

    with read_pages(data) as pages:
        assert len(pages) >= 6
        write_pages(watched(pages), tmp_path / name, pages)
    assert most <= 2


@pytest.mark.parametrize("kind", ["plain", "ImageJ", "RGB"])
def test_offsets_of_64_bit(kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As for a file of more than 4 GB."""
    monkeypatch.setattr(tiff_writer, "BIG_FROM", 1000)
    with read_pages(STACKS[kind]()) as pages:
        write_pages((replace(p, exif=p.exif or exif_block()) for p in pages), tmp_path / "b.tif", pages)
        expected = [p.pixels for p in pages]
    assert (tmp_path / "b.tif").read_bytes()[:4] == b"II+\0"
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_bigtiff
        assert all(np.array_equal(p.asarray(), e) for p, e in zip(file.pages, expected, strict=True))
        if kind == "plain":
            assert file.pages[3].tags["ExifTag"].value["ISOSpeedRatings"] == 800
    with read_pages(tmp_path / "b.tif") as pages:
        assert [p.pixels.tolist() for p in pages] == [e.tolist() for e in expected]


def test_a_small_file_has_offsets_of_32_bit(tmp_path: Path):
    with read_pages(STACKS["BigTIFF"]()) as pages:
        written(pages, tmp_path / "b.tif")
    assert (tmp_path / "b.tif").read_bytes()[:4] == b"II*\0"


def test_durations_are_fractions():
    from nlrn.files.animation_writer import _control

    image = Image(noise((4, 5)), milliseconds=1000 / 30)
    numerator, denominator = struct.unpack(">HH", _control(image)[16:20])
    assert Fraction(numerator, denominator) == Fraction(1, 30)


@pytest.mark.slow
def test_a_stack_of_more_than_4_gb(tmp_path: Path):
    """A method that returns its input, and an input that is compressed, as it is empty but for a pixel a plane."""
    side, count = 8192, 66
    if shutil.disk_usage(tmp_path).free < 6 << 30:
        pytest.skip("needs 6 GB of disk")
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for index in range(count):
            plane = np.zeros((side, side), np.uint8)
            plane[7 * index, index] = 1 + index
            said = None if index else f"ImageJ=1.54f\nimages={count}\nslices={count}\n"
            file.write(plane, description=said, metadata=None, compression="zlib")
    nlrn.denoise(tmp_path / "a.tif", 0, model=lambda image, sigma=None: image, output=tmp_path / "b.tif")
    assert (tmp_path / "b.tif").stat().st_size > 1 << 32
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.is_bigtiff
        assert (file.series[0].axes, file.series[0].shape) == ("ZYX", (count, side, side))
        for index in (0, 1, count - 1):
            plane = file.pages[index].asarray()
            assert plane[7 * index, index] == 1 + index
            assert plane.sum() == 1 + index
