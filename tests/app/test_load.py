"""A server as `nlrn serve` runs it, under many clients, broken ones and slow ones."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from slow_work import wait

from nlrn.files.images import Image, encode_image, read_image
from nlrn.restoration import Restorer

CLIENTS = 16


def ended(client):
    """Waits for the server to end a connection on which it has sent nothing."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


class Server:
    """`nlrn serve` in a process of its own."""

    def __init__(self, process, address):
        self.process, self.address = process, address
        self.place = (urlsplit(address).hostname, urlsplit(address).port)

    def ask(self, path, body=None, timeout=120):
        """Status and body of an answer."""
        request = urllib.request.Request(self.address + path, body, {"Content-Type": "image/png"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def metric(self, name):
        found = re.search(rf"^nlrn_{name} (\S+)$", self.ask("metrics")[1].decode(), re.MULTILINE)
        return float(found[1])

    @property
    def memory(self):
        """Bytes in memory."""
        if not Path("/proc/self/statm").exists():
            pytest.skip("needs /proc, for the memory of the server")
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def idle(self):
        """True if it holds nothing and works on nothing."""
        names = ("held_bytes", "jobs_waiting", "jobs_running")
        return all(self.metric(name) == 0 for name in names)


@contextmanager
def serving(weights, *arguments):
    command = [sys.executable, "-m", "nlrn", "serve", "--port", "0", "--no-browser", "--device", "cpu"]
    command += ["--add-model", str(weights), *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            yield Server(process, re.search(r"http://localhost:\d+/", line)[0])
        finally:
            process.kill()


def pictures(weights, count):
    """Uploads of different sizes and noise, and the files that they become."""
    restorer, pairs = Restorer(weights, device="cpu"), []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (24 + seed % 5, 30 + seed % 7), np.uint8)
        restored, _ = restorer.image(Image(pixels, format="PNG"), 10.0 + seed)
        pairs.append((encode_image(Image(pixels, format="PNG")), 10.0 + seed, encode_image(restored)))
    return pairs


def bad(good):
    """Requests that are refused, each with its status."""
    upload = good[0][0]
    return [
        ("v1/denoise", b"no image", 422),
        ("v1/denoise", upload[:60], 422),
        ("v1/denoise?sigma=many", upload, 422),
        ("v1/denoise?model=none", upload, 422),
        ("v1/denoise", bytes(200_000), 413),
        ("v1/dream", upload, 404),
    ]


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_many_clients(count, tiny_grey):
    """Every good request has its own right bytes, every tenth is bad and refused, and nothing stays behind."""
    name, good = tiny_grey.stem, pictures(tiny_grey, 12)
    refused = bad(good)
    with serving(tiny_grey, "--max-upload", "100K", "--max-queue", "64") as server:

        def request(number):
            if number % 10 == 9:
                path, body, status = refused[number // 10 % len(refused)]
                found, answer = server.ask(path, body)
                assert found == status, (path, found, answer)
                assert json.loads(answer)["error"]["status"] == status
                return "refused"
            body, sigma, expected = good[number % len(good)]
            found, answer = server.ask(f"v1/denoise?model={name}&sigma={sigma}", body)
            assert found == 200, answer
            assert answer == expected, f"request {number} has another picture"
            return "right"

        def load():
            with ThreadPoolExecutor(CLIENTS) as clients:
                return Counter(clients.map(request, range(count), timeout=150))

        started = time.monotonic()
        assert load() == {"right": count - count // 10, "refused": count // 10}
        seconds, before = time.monotonic() - started, server.memory
        load()
        wait(lambda: server.idle)
        grown = server.memory - before
        print(
            f"{count} requests in {seconds:.1f} s; {before / 1e6:.0f} MB, and {grown / 1e6:+.1f} MB after as many"
        )
        assert grown < 16e6


def test_clients_that_leave_free_their_place(tiny_grey):
    """The work for a client that is gone stops, and an upload that breaks off is let go."""
    large = encode_image(Image(np.random.default_rng(0).integers(0, 256, (700, 700), np.uint8), format="PNG"))
    with serving(tiny_grey, "--max-queue", "2") as server:
        head = f"POST /v1/denoise?model=nlrn-small-gray&sigma=25 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(large)}\r\n\r\n"
        clients = [socket.create_connection(server.place) for _ in range(4)]
        for client in clients[:3]:
            client.sendall(head.encode() + large)
            wait(lambda: server.metric("jobs_running") == 1)
        clients[3].sendall(head.encode() + large[:1000])
        wait(lambda: server.metric("jobs_waiting") == 2)
        assert server.ask("v1/denoise", large)[0] == 429
        for client in clients:
            client.close()
        wait(lambda: server.idle)
        assert server.ask(f"v1/denoise?model={tiny_grey.stem}", pictures(tiny_grey, 1)[0][0])[0] == 200


def test_slow_clients_are_given_up(tiny_grey):
    """With a head, a body or an answer that does not move on; others are served meanwhile."""
    body = pictures(tiny_grey, 1)[0][0]
    raw = np.random.default_rng(0).integers(0, 256, (1300, 1500, 3), np.uint8)
    large = encode_image(Image(raw), "TIFF")  # 6 MB, more than the system keeps for a connection
    with serving(tiny_grey, "--max-receive", "1.5") as server:
        silent, headless, halfway = (socket.create_connection(server.place) for _ in range(3))
        headless.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        start = f"POST /v1/denoise HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        halfway.sendall(start.encode() + body[:40])
        assert server.ask("health")[0] == 200
        answer = halfway.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        for client in (silent, headless):
            client.settimeout(30)
            assert ended(client)
        options = "model=gaussian&sigma=1&format=tiff"
        head = (
            f"POST /v1/denoise?{options} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(large)}\r\n\r\n"
        )
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(server.place)
        deaf.sendall(head.encode() + large)
        wait(lambda: server.ask("metrics")[1].count(b'state="done"') == 1)
        assert server.metric("held_bytes") > 1e6  # the answer that nobody takes
        wait(lambda: server.idle, 30)
        assert read_image(server.ask(f"v1/denoise?model={tiny_grey.stem}&sigma=5", body)[1]).pixels.ndim == 2
        for client in (silent, headless, halfway, deaf):
            client.close()
