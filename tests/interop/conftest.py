"""Running the command in this process."""

from __future__ import annotations

import pytest

from nlrn.cli import main


@pytest.fixture
def nlrn_command(capfd):
    """Runs `nlrn ARGUMENTS`: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run
