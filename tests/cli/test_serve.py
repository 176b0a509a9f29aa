"""`nlrn serve` as a command: what it refuses, and one server that runs."""

from __future__ import annotations

import builtins
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "can be reached from elsewhere: give --token, or --insecure"),
        (["--host", "192.0.2.1", "--insecure", "--device", "cpu"], "cannot listen on 192.0.2.1"),
        (["--host", "no.such.name.invalid", "--token", "12345678"], "cannot listen on no.such.name.invalid"),
        (["--token", "short"], "--token must have 8 characters or more, got 5"),
        (["--prefix", "nlrn/"], "--prefix must begin with / and not end with it, got 'nlrn/'"),
        (["--max-upload", "much"], "--max-upload must be a size"),
        (["--add-model", "missing.safetensors"], "no file missing.safetensors"),
        (["--device", "tpu"], "device"),
    ],
)
def test_refused(arguments, words, nlrn):
    outcome = nlrn("serve", "--port", "0", "--no-browser", *arguments)
    assert outcome.code == 2
    assert words in outcome.err


def test_a_port_that_is_taken(nlrn):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        outcome = nlrn("serve", "--port", port, "--device", "cpu")
    assert outcome.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in outcome.err


def test_without_the_extra(nlrn, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "uvicorn":
            raise ImportError("no uvicorn", name="uvicorn")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    outcome = nlrn("serve")
    assert outcome.code == 2
    assert "(uvicorn is missing): python -m pip install 'nlrn[app]'" in outcome.err


def test_a_server_runs_until_it_is_interrupted():
    environment = os.environ | {"NLRN_TOKEN": "correct horse"}
    command = [sys.executable, "-m", "nlrn", "serve", "--port", "0", "--no-browser", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            line = process.stderr.readline()
            address = re.search(r"http://localhost:\d+/", line)
            assert address, line
            assert "correct horse" not in line
            with urllib.request.urlopen(address[0] + "health", timeout=30) as answer:
                assert json.load(answer)["devices"] == ["cpu"]
            with pytest.raises(urllib.error.HTTPError, match="401") as refused:
                urllib.request.urlopen(address[0] + "metrics", timeout=30)
            refused.value.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) in (0, 130)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
