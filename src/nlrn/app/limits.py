"""The bounds of a server, and the refusal of what is beyond them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The bounds of a server.

    Args:
        upload: bytes of one upload.
        pixels: pixels of one image, and of an enlarged one.
        queue: jobs that wait.
        seconds: time that the work on one job may take; it is noticed at the next step or band of the network.
        memory: bytes of all uploads and results that are held.
        receive_seconds: time in which a request must arrive.
        jobs: finished jobs that are remembered.
    """

    upload: int = 100 * MIB
    pixels: int = 64_000_000
    queue: int = 32
    seconds: float = 1800.0
    memory: int = 1024 * MIB
    receive_seconds: float = 60.0
    jobs: int = 1000


def check_pixels(most: int, width: int, height: int) -> None:
    """Refuses an image, or a result, of more than `most` pixels: 413."""
    if width * height > most:
        expected = f"at most {most} pixels in the image and in the result"
        raise Refused(413, "the image has too many pixels", expected=expected, got=f"{width}x{height}")


class Refused(Exception):
    """A request or a job that the server does not do.

    Args:
        status: HTTP status: 413 too large, 422 not understood, 429 queue full, 503 no memory, 504 out of time.
        message: one sentence for the user.
        expected: what would have been accepted.
        got: what came.
    """

    def __init__(
        self, status: int, message: str, *, expected: str | None = None, got: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.expected, self.got = status, message, expected, got

    def as_json(self) -> dict[str, Any]:
        """The body of the answer."""
        body = {
            "status": self.status,
            "message": self.message,
            "expected": self.expected,
            "got": self.got,
        }
        return {"error": {name: value for name, value in body.items() if value is not None}}
