"""The files of the page, read once; a name that is not among them leads nowhere."""

from __future__ import annotations

import hashlib
from importlib import resources

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def read_page() -> dict[str, tuple[bytes, str, str]]:
    """Content, media type and tag of each file, by name."""
    files = {}
    for entry in resources.files(__package__).joinpath("static").iterdir():
        kind = entry.name.rpartition(".")[2]
        if entry.is_file() and kind in MEDIA_TYPES:
            data = entry.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:20]}"'
            files[entry.name] = (data, MEDIA_TYPES[kind], tag)
    return files
