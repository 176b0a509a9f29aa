"""The files of the page and of the slider on it, read once; a name that is not among them leads nowhere."""

from __future__ import annotations

import hashlib
from importlib import resources

from ..viewer.assets import asset

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


SLIDER = ("slider.js", "magnifier.js", "pixels.js", "slider.css")


def read_page() -> dict[str, tuple[bytes, str, str]]:
    """Content, media type and tag of each file, by name."""
    own = resources.files(__package__).joinpath("static").iterdir()
    texts = {entry.name: entry.read_text("utf-8") for entry in own if entry.is_file()}
    texts |= {name: asset(name) for name in SLIDER}
    files = {}
    for name, text in texts.items():
        kind = name.rpartition(".")[2]
        if kind in MEDIA_TYPES:
            data = text.encode()
            files[name] = (data, MEDIA_TYPES[kind], f'"{hashlib.sha256(data).hexdigest()[:20]}"')
    return files
