"""The page under axe-core, which looks for what shuts people out; https://github.com/dequelabs/axe-core."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest
from serving import CANVAS, DONE, READY, STATUS, photo, running, set_simply

FAULTS = """axe.run().then(({ violations }) => JSON.stringify(violations.map(
    ({ id, impact, help, nodes }) => [id, impact, help, ...nodes.map(({ html }) => html.slice(0, 200))])))"""


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core: that of the package axe-core-python, or the file that NLRN_AXE names."""
    if "NLRN_AXE" in os.environ:
        return Path(os.environ["NLRN_AXE"]).read_text()
    package = importlib.util.find_spec("axe_core_python")
    if package is None:
        pytest.skip("needs axe-core (python -m pip install axe-core-python)")
    return (Path(package.origin).parent / "axe.min.js").read_text()


@pytest.fixture
def page(browser):
    with running() as address:
        browser.open(address)
        yield browser


def faults(browser, axe):
    browser.run(f"{axe};0")
    return json.loads(browser.run(FAULTS))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_in_every_state(dark, page, axe, tmp_path):
    """Empty, with a fault, with pictures, on a spot, with the table and the magnifier, at both widths."""

    def check(state):
        for width, phone in ((1280, False), (390, True)):
            page.size(width, 844, phone=phone, dark=dark)
            assert faults(page, axe) == [], f"{state}, {width} pixels wide"
        page.size(1280, 844, dark=dark)

    check("empty")
    (tmp_path / "text.png").write_text("not an image")
    page.choose(tmp_path / "text.png")
    page.wait(f"/format|image/i.test({STATUS})")
    check("with a fault")
    page.choose(photo(tmp_path / "one.png"), photo(tmp_path / "two.png"))
    page.wait(READY)
    set_simply(page)
    page.click("#all")
    page.wait(f"{DONE} && !document.querySelector('#zip').hidden")
    page.run("document.querySelector('#methods').open = true")
    page.run(
        "document.querySelectorAll('#method-choices select').forEach((s, i) => (s.value = i ? 'none' : 'nlm'))"
    )
    page.click("#measure")
    page.wait("document.querySelector('#measured button') && !document.querySelector('#measure').disabled")
    page.click(".slider-bar button:nth-child(4)")
    page.mouse("Moved", page.place(CANVAS))
    page.wait("!document.querySelector('.slider-magnifier').hidden")
    check("done, with the table and the magnifier")
    page.click("[value=upscale]")
    page.run(
        "{ const scale = document.querySelector('#scale'); scale.value = 'within';"
        " scale.dispatchEvent(new Event('input', { bubbles: true })); }"
    )
    check("enlarging")


def test_axe_sees_the_page(page, axe):
    """A fault that is put in is found, so that the silence above means something."""
    page.run("document.querySelector('#restore').textContent = ''")
    assert [fault[0] for fault in faults(page, axe)] == ["button-name"]
