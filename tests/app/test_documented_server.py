"""The examples of docs/server.md do what they say."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import photo, running
from typer.main import get_command

from nlrn.cli import app
from nlrn.files.images import encode_image, read_image

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"
PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder of the user, with the files that the page speaks of, and the address of a server."""
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "small.png"):
        photo(tmp_path / name, (30, 40, 3))
    (tmp_path / "old.jpg").write_bytes(encode_image(read_image(tmp_path / "photo.png"), "JPEG"))
    with running() as address:
        yield tmp_path, address.rstrip("/")


def test_curl(place):
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    folder, address = place
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("curl ")]
    assert len(commands) == 3
    for command in commands:
        subprocess.run([*shlex.split(command.replace("http://127.0.0.1:8642", address)), "-fsS"], check=True)
    assert read_image(folder / "restored.png").pixels.shape == (30, 40, 3)
    assert read_image(folder / "restored.jpg").format == "JPEG"
    assert read_image(folder / "large.png").pixels.shape == (90, 120, 3)


def test_python(place, capsys):
    folder, address = place
    (example,) = blocks("python")
    exec(compile(example.replace("http://127.0.0.1:8642", address), "server.md", "exec"), {})
    assert read_image(folder / "restored.png").pixels.shape == (30, 40, 3)
    assert capsys.readouterr().out.startswith("nlrn-")


def test_commands_of_the_deployment():
    """Their options are those of the command, and the limits are its defaults."""
    command = get_command(app).commands["serve"]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    lines = [shlex.split(line.partition("=")[2]) for line in blocks("ini")[0].splitlines() if "serve" in line]
    lines += [re.findall(r'"(.*?)"', line) for line in DOCKERFILE.read_text().splitlines() if "CMD" in line]
    assert len(lines) == 2
    for words in lines:
        assert words[1] == "serve"
        options = [word for word in words if word.startswith("-")]
        assert options
        assert set(options) <= known
    limits = re.findall(r"^\| `(--max-\w+)`", PAGE, re.MULTILINE)
    assert set(limits) == {name for name in known if name.startswith("--max-")} - {"--max-memory"}
