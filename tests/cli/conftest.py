"""Running the command in this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from nlrn.cli import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def nlrn(capfd, tmp_path, monkeypatch):
    """Runs `nlrn ARGUMENTS` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(stopped.value.code, captured.out, captured.err)

    return run
