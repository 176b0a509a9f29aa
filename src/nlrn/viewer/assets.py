"""The modules and the style of the slider, and the page around it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from .embedded import Embedded


@cache
def asset(name: str) -> str:
    """The text of a file of the slider: `slider.js`, `magnifier.js`, `pixels.js`, `open.js`, `slider.css`,
    `compare.html` or `sheet.html`."""
    return resources.files(__package__).joinpath("static", name).read_text("utf-8")


def compare_page(title: str, about: str, labels: Sequence[str], pictures: Sequence[Embedded]) -> bytes:
    """A page of one file, which asks no host for anything.

    Args:
        title: of the page.
        about: a line under the pictures.
        labels: a name for either side.
        pictures: before and after.
    """
    names = ("before", "after")
    described = [picture.described(name) for name, picture in zip(names, pictures, strict=True)]
    about_data = json.dumps({"labels": list(labels), "pictures": described}).replace("<", "\\u003c")
    blocks = [_block("about-data", "application/json", about_data)]
    for name, picture in zip(names, pictures, strict=True):
        blocks += [_block(id_, "text/plain", data) for id_, data in picture.encoded(name).items()]
    return _page("compare.html", title, about, blocks)


def sheet_page(title: str, about: str, rows: Sequence[dict[str, Any]], pictures: dict[str, str]) -> bytes:
    """A page of one file for several pairs of pictures.

    Args:
        title: of the page.
        about: a line under the title.
        rows: facts on each pair.
        pictures: PNG files in base64, by the names of their elements.
    """
    data = json.dumps(list(rows)).replace("<", "\\u003c")
    blocks = [_block("about-data", "application/json", data)]
    blocks += [_block(id_, "text/plain", text) for id_, text in pictures.items()]
    return _page("sheet.html", title, about, blocks)


def _page(template: str, title: str, about: str, blocks: Sequence[str]) -> bytes:
    parts = {
        "title": html.escape(title),
        "about": html.escape(about),
        "data": "\n".join(blocks),
        "slider.css": asset("slider.css"),
        **{name: _inlined(name) for name in ("slider.js", "magnifier.js", "pixels.js", "open.js")},
    }
    # In one pass: what stands in a title is no mark.
    return re.sub(r"\{\{([\w.]+)\}\}", lambda mark: parts[mark[1]], asset(template)).encode()


def _inlined(name: str) -> str:
    """A module without its imports, for a page on which all modules are one script."""
    return re.sub(r"^import .*\n", "", asset(name), flags=re.MULTILINE)


def _block(id_: str, kind: str, text: str) -> str:
    return f'<script type="{kind}" id="{id_}">{text}</script>'
