"""The page of `--html`: what it holds, and how a browser shows it."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
from PIL import Image as Pillow

from nlrn.files.images import Image
from nlrn.viewer.sheet import DETAIL, MOST, PART, Sheet, entry_of

RNG = np.random.default_rng(0)


def rows(page: bytes) -> list[dict]:
    return json.loads(re.search(rb'id="about-data">(.*?)</script>', page)[1])


def changed(by: int, shape=(40, 60), dtype=np.uint8) -> tuple[Image, Image]:
    before = np.full(shape, 100, dtype)
    return Image(before), Image(before + dtype(by))


def test_what_changed_most_comes_first():
    sheet = Sheet("batch")
    for name, by in (("little.png", 1), ("much.png", 30), ("not.png", 0), ("some.png", 5)):
        sheet.add(name, *changed(by), "nlrn-small-gray")
    found = rows(sheet.html())
    assert [row["name"] for row in found] == ["much.png", "some.png", "little.png", "not.png"]
    assert [row["change"] for row in found] == [
        "changed by 30 grey levels",
        "changed by 5 grey levels",
        "changed by 1 grey levels",
        "unchanged",
    ]
    assert b"<p>4 pictures</p>" in sheet.html()


def test_pictures_of_16_bit_count_in_grey_levels_and_keep_their_numbers():
    before = RNG.integers(0, 65535, (40, 60, 3), np.uint16)
    after = (before // 257 // 2 * 514).astype(np.uint16)
    entry = entry_of("a.tif", Image(before), Image(after), "")
    error = np.sqrt(np.mean((before / 257.0 - after / 257.0) ** 2))
    assert entry.change == pytest.approx(error, rel=1e-3)
    assert entry.pictures[1].values is None
    assert entry.nbytes == 2 * before.nbytes


def test_of_a_large_picture_the_part_that_changed_most_is_there():
    before = RNG.integers(0, 255, (PART + 300, 2 * PART), np.uint8)
    after = before.copy()
    after[-40:, -40:] ^= 64
    entry = entry_of("a.png", Image(before), Image(after), "")
    assert (entry.pictures[0].width, entry.pictures[0].height) == (PART, PART)
    assert entry.part == f"{PART}x{PART} of {2 * PART}x{PART + 300} pixels, where most changed"
    detail = np.asarray(Pillow.open(io.BytesIO(entry.details[1])))
    assert detail.shape == (DETAIL, DETAIL)
    assert (detail[-40:, -40:] == after[-40:, -40:]).mean() == 1


@pytest.mark.parametrize(("size", "width"), [((80, 120), 60), ((60, 90), 90)], ids=["x2", "x1.5"])
def test_enlarged_pictures(size, width):
    """Before by a whole number smaller, or bicubic."""
    before = RNG.integers(0, 255, (40, 60, 3), np.uint8)
    after = RNG.integers(0, 255, (*size, 3), np.uint8)
    entry = entry_of("a.png", Image(before), Image(after), "")
    assert [picture.width for picture in entry.pictures] == [width, size[1]]


def test_without_room_the_least_changed_have_no_slider():
    sheet = Sheet("batch", room=3 * 2 * 2400)
    for by in (4, 1, 3, 5, 2):
        sheet.add(f"{by}.png", *changed(by), "")
    found = rows(sheet.html())
    assert [(row["name"], row["pictures"] is not None) for row in found] == [
        ("5.png", True),
        ("4.png", True),
        ("3.png", True),
        ("2.png", False),
        ("1.png", False),
    ]


def test_of_very_many_the_most_changed_are_there():
    sheet = Sheet("batch")
    for by in range(MOST + 5):
        sheet.add(f"{by}.png", *changed(by % 120, (20, 20)), "")
    page = sheet.html()
    assert len(rows(page)) == MOST
    assert f"{MOST + 5} pictures, of which the {MOST} that changed most are here".encode() in page


def test_names_are_no_markup():
    sheet = Sheet("<b>&")
    sheet.add("</script><script>x", *changed(3), "<i>")
    sheet.leave_out("<u>.png", "it is gone")
    page = sheet.html()
    assert b"<b>" not in page
    assert b"<i>" not in page
    assert page.count(b"</script>") == sheet.html().count(b"<script")
    assert b"1 picture; without &lt;u&gt;.png (it is gone)" in page


def test_a_browser_shows_the_sheet_and_each_picture(browser, tmp_path):
    sheet = Sheet("batch")
    for name, by in (("a.png", 10), ("b<i>.png", 50)):
        sheet.add(name, *changed(by), f"model of {name}")
    page = tmp_path / "page.html"
    page.write_bytes(sheet.html())
    browser.size(900, 700)
    browser.open(f"file://{page}")
    browser.wait("document.getElementById('name').textContent === 'b<i>.png'")
    assert browser.run("[...document.querySelectorAll('.name')].map((x) => x.textContent)") == [
        "b<i>.png",
        "a.png",
    ]
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    browser.mouse("Moved", browser.place(".slider-canvas", 40, 20))
    browser.wait("document.querySelector('.slider-values').textContent.includes('150')")
    browser.click("li:nth-child(2) button")
    browser.wait("document.getElementById('name').textContent === 'a.png'")
    assert browser.run("document.getElementById('about').textContent") == (
        "model of a.png; changed by 10 grey levels"
    )
    pressed = "[...document.querySelectorAll('li button')].map((b) => b.getAttribute('aria-pressed'))"
    assert browser.run(pressed) == ["false", "true"]
    assert browser.requests() == {f"file://{page}"}
