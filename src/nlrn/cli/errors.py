"""The error that stops a command."""

from __future__ import annotations

CANNOT_START = 2


class CliError(Exception):
    """A command cannot start or go on; the message is one line for the user."""

    def __init__(self, message: str, exit_code: int = CANNOT_START) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code = exit_code
