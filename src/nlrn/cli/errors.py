"""The error that stops a command."""

from __future__ import annotations

CANNOT_START = 2


class CliError(Exception):
    """A command cannot start or go on; the message is one line for the user."""

    def __init__(self, message: str, exit_code: int = CANNOT_START) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code


def printable(text: object) -> str:
    """Text for a terminal: a line break or an escape sequence in the name of a file is shown, and not obeyed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
