"""The service file and the proxy of docs/server.md, as systemd and nginx read them."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from urllib.parse import urljoin, urlsplit

import pytest
from serving import photo, running
from slow_work import Slow
from test_documented_server import blocks

NAME = "photos.example"


def options(word):
    """The values of an option of the documented service."""
    (line,) = [line for line in blocks("ini")[0].splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line.partition("=")[2])
    return [value for name, value in itertools.pairwise(words) if name == word]


def test_the_service_file(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    unit = blocks("ini")[0].replace("/opt/nlrn/bin/nlrn", shutil.which("true"))
    (tmp_path / "nlrn.service").write_text(unit)
    command = ["systemd-analyze", "verify", "--man=no", tmp_path / "nlrn.service"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.fixture
def proxied(tmp_path, tiny_grey):
    """The address of a server behind nginx with the documented block, as a browser would have it."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("needs nginx")
    (prefix,) = options("--prefix")
    with socket.socket() as chosen, running(prefix, names=options("--name"), grey=tiny_grey) as address:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
        chosen.close()
        block = blocks("nginx")[0].replace("127.0.0.1:8642", urlsplit(address).netloc)
        folders = "".join(
            f"{kind}_temp_path {tmp_path}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; events {{}}\n"
            f"http {{ access_log off; {folders} server {{ listen 127.0.0.1:{port}; {block} }} }}\n"
        )
        command = [nginx, "-e", tmp_path / "errors", "-c", tmp_path / "nginx.conf"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                wait_for(port, process)
                yield f"http://127.0.0.1:{port}{prefix}/"
            finally:
                process.terminate()


def wait_for(port, process):
    for _ in range(200):
        assert process.poll() is None, process.stderr.read()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("nginx does not listen")


def ask(address, data=None, **headers):
    request = urllib.request.Request(address, data, {"Host": NAME, "Content-Type": "image/png", **headers})
    return urllib.request.urlopen(request, timeout=60)


def test_behind_nginx(proxied, tmp_path):
    """Page and pictures come through under the documented name, an upload above nginx's own limit of 1 MB too."""
    with ask(proxied) as page:
        script = re.search(r'src="([^"]+\.js)"', page.read().decode())[1]
    with ask(urljoin(proxied, script)) as answer:
        assert "javascript" in answer.headers["content-type"]
    upload = photo(tmp_path / "photo.png", (700, 800, 3)).read_bytes()
    assert len(upload) > 1 << 20
    with ask(f"{proxied}v1/denoise?model=gaussian&sigma=20", upload) as answer:
        assert answer.read().startswith(b"\x89PNG")
    with pytest.raises(urllib.error.HTTPError, match="421"):
        ask(proxied, Host="other.example")


def test_events_pass_nginx_at_once(proxied, tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    upload = photo(tmp_path / "photo.png", (24, 32, 3)).read_bytes()
    with ask(f"{proxied}v1/denoise?model=gaussian&sigma=20", upload, Accept="application/json") as answer:
        job = json.load(answer)["id"]
    assert slow.begun.wait(10)
    with ask(f"{proxied}v1/jobs/{job}/events") as events:
        assert events.readline() == b"event: progress\n"
        slow.let_go.set()
        assert b"event: done" in events.read()
