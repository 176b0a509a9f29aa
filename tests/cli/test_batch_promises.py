"""The promises of `docs/reliability.md` about batches: nothing is lost, nothing is partial, and a run goes on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nlrn.files.images import Image, write_image

COMMAND = [sys.executable, "-m", "nlrn"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: fork, namespaces, /proc")


def pictures(folder: Path, count: int, side: int = 32) -> None:
    """Grey noise of several sizes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        shape = (side + number % 7, side + number % 5)
        write_image(Image(rng.integers(0, 256, shape, dtype=np.uint8)), folder / f"{number:04}.png")


def damage(folder: Path, every: int) -> int:
    """Breaks every so many files, each in one of five ways, and returns their number."""
    broken = sorted(folder.iterdir())[::every]
    for number, path in enumerate(broken):
        data = path.read_bytes()
        ways = (b"", b"no picture", data[: len(data) // 2], data[:16] + b"\xff" * 8 + data[24:], data[:8])
        path.write_bytes(ways[number % len(ways)])
    return len(broken)


def digests(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*.png") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def strangers(folder: Path) -> list[str]:
    """Files that are neither results nor the journal's."""
    paths = (path for path in folder.rglob("*") if path.is_file() and ".nlrn" not in path.parts)
    return [str(path) for path in paths if path.suffix != ".png"]


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return os.sysconf("SC_PAGE_SIZE") * int(Path(f"/proc/{pid}/statm").read_text().split()[1])


@LINUX
@pytest.mark.parametrize(("count", "bad"), [(60, 6), pytest.param(1000, 50, marks=pytest.mark.slow)])
def test_bad_files_are_named_and_memory_stays(tmp_path, tiny_grey, count, bad):
    pictures(tmp_path / "in", count)
    assert damage(tmp_path / "in", count // bad) == bad
    arguments = ["denoise", "in", "-o", "out", "--model", tiny_grey, "--sigma", "20", "--device", "cpu"]
    lines, memory = [], {}
    with subprocess.Popen([*COMMAND, *arguments, "--json"], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            lines.append(json.loads(line))
            memory[len(lines)] = resident(process.pid)
    assert process.returncode == 3
    reasons = {line["source"]: line["reason"] for line in lines if line["event"] == "failed"}
    assert len(reasons) == bad
    assert all(reasons.values())
    assert len(digests(tmp_path / "out")) == count - bad
    assert lines[-1]["files"] == {"restored": count - bad, "failed": bad}
    growth = memory[count] - memory[min(100, count // 2)]
    print(f"memory grew by {growth / 1e6:.1f} MB of {memory[count] / 1e6:.0f} MB")
    assert growth <= 50e6


# Python and PyTorch are loaded once, and every run is a fork: a moment takes milliseconds instead of seconds.
KILLER = """
import json, os, random, signal, sys, time
import torch, nlrn.batch.processes, nlrn.files.png16
from nlrn.cli import main
moments, arguments = int(sys.argv[1]), sys.argv[2:]
def start(out):
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            main([*arguments, "-o", out, "--resume"])
        finally:
            os._exit(0)
    return pid
def results(out):
    return [name for name in os.listdir(out) if name.endswith(".png")] if os.path.isdir(out) else []
def finished(pid, out, count, seconds):
    deadline = None
    while deadline is None or time.perf_counter() < deadline:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        if deadline is None and len(results(out)) >= count:
            deadline = time.perf_counter() + seconds
        time.sleep(0.0005)
    return False
torch.set_num_threads(1)
os.waitpid(start("warm"), 0)
begun = time.perf_counter()
os.waitpid(start("whole"), 0)
duration, rng = time.perf_counter() - begun, random.Random(moments)
kills, folder, states = 0, 0, []
while kills < moments:
    pid = start(f"out{folder}")
    # After so many results, and some of the time that a result takes: however fast the machine is.
    if finished(pid, f"out{folder}", 10 * kills // moments, rng.uniform(0, duration / 10)):
        folder += 1
        continue
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kills += 1
    done = results(f"out{folder}")
    states.append([f"out{folder}", len(done)])
    for name in done:
        if open(f"out{folder}/{name}", "rb").read() != open(f"whole/{name}", "rb").read():
            sys.exit(f"{name} differs after kill {kills}")
    if len(done) == 10:
        os.waitpid(start(f"out{folder}"), 0)
        folder += 1
os.waitpid(start(f"out{folder}"), 0)
print(json.dumps(states))
"""


@LINUX
@pytest.mark.parametrize("moments", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_resumed(tmp_path, tiny_grey, moments):
    pictures(tmp_path / "in", 12)
    damage(tmp_path / "in", 6)
    arguments = ["denoise", "in", "--model", tiny_grey, "--sigma", "20", "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(moments), *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)
    print(states)
    assert len(states) == moments
    assert any(0 < count < 10 for _, count in states)  # in the middle of the work, not of the start
    whole = digests(tmp_path / "whole")
    assert len(whole) == 10
    for folder in {name for name, _ in states}:
        assert digests(tmp_path / folder) == whole
        assert strangers(tmp_path / folder) == []


def test_a_full_disk_stops_the_batch_and_it_goes_on(nlrn, tmp_path, monkeypatch):
    """The disk is full from some synchronization on, be it of a result or of the journal."""
    pictures(tmp_path / "in", 12)
    arguments = ["denoise", "in", "--model", "gaussian", "--sigma", "20"]
    monkeypatch.setattr(sys, "argv", ["nlrn", *arguments, "-o", "out"])
    nlrn(*arguments, "-o", "whole")
    sync = os.fsync
    for last, code in ((errno.ENOSPC, 3), (errno.EDQUOT, 3)):
        for room in (12, 13, 14):  # of a claim, a result, what is done
            left = iter(range(room))

            def limited(file, left=left, last=last):
                if next(left, None) is None:
                    raise OSError(last, os.strerror(last))
                sync(file)

            monkeypatch.setattr(os, "fsync", limited)
            outcome = nlrn(*arguments, "-o", "out")
            monkeypatch.setattr(os, "fsync", sync)
            assert outcome.code == code
            assert os.strerror(last) in outcome.err
            assert outcome.err.count("failed:") == 1
            assert "files were not begun; when there is room: nlrn denoise in" in outcome.err
            assert strangers(tmp_path / "out") == []
            found, whole = digests(tmp_path / "out"), digests(tmp_path / "whole")
            assert 0 < len(found) < 12
            assert all(whole[name] == digest for name, digest in found.items())
            assert nlrn(*arguments, "-o", "out", "--resume").code == 0
            assert digests(tmp_path / "out") == whole
            shutil.rmtree(tmp_path / "out")


def namespaces(*flags: str) -> list[str]:
    """A command that runs another in namespaces of its own; skips where that is not allowed."""
    command = ["unshare", *flags]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip(f"needs the right to {' '.join(command)}")
    return command


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_small_disk_in_truth(tmp_path, jobs):
    """A file system of 128 KB for the results, which then gets room."""
    pictures(tmp_path / "in", 12, side=150)
    (tmp_path / "out").mkdir()
    run = f"{sys.executable} -m nlrn denoise in -o out --model gaussian --sigma 20 --jobs {jobs}"
    script = f"""
        mount -t tmpfs -o size=128k none out || exit 99
        {run} 2> first; echo $? >> first
        ls -A out > listed
        mount -o remount,size=16m out
        {run} --resume 2> second; echo $? >> second
        {run.replace("-o out", "-o whole")}
        rm -r whole/.nlrn out/.nlrn
        diff -r out whole > differences
    """
    done = subprocess.run([*namespaces("-m"), "sh", "-c", script], cwd=tmp_path, capture_output=True)
    if done.returncode == 99:
        pytest.skip("needs the right to mount a tmpfs")
    first, second = (tmp_path / "first").read_text(), (tmp_path / "second").read_text()
    assert first.endswith("\n3\n")
    restored, failed = first.count(" -> "), first.count("failed: ")
    assert restored >= 1
    assert 1 <= failed <= 3  # what two processes had at hand
    assert f"{12 - restored - failed} files were not begun" in first
    assert "No space left on device" in first
    assert ".part" not in (tmp_path / "listed").read_text()
    assert second.endswith("\n0\n"), second
    assert "done before" in second
    assert (tmp_path / "differences").read_text() == ""


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_a_stack_of_many_pages(nlrn, tmp_path, count):
    rng = np.random.default_rng(0)
    noisy = (100 + np.arange(count)[:, None, None] % 50 + rng.normal(0, 10, (count, 24, 20))).astype("uint8")
    tifffile.imwrite(tmp_path / "s.tif", noisy, photometric="minisblack")
    outcome = nlrn("denoise", "s.tif", "-o", "out.tif", "--model", "gaussian", "--sigma", "10")
    assert outcome.code == 0, outcome.err
    assert f"({count} pages, " in outcome.err
    restored = tifffile.imread(tmp_path / "out.tif")
    assert restored.shape == noisy.shape
    levels = restored.reshape(count, -1).mean(axis=1)
    assert np.abs(levels - noisy.reshape(count, -1).mean(axis=1)).max() < 1  # each page in its place


@LINUX
@pytest.mark.slow
def test_without_a_network(tmp_path):
    """With the loopback device alone, which is up."""
    pictures(tmp_path / "in", 4)
    run = f"ip link set lo up 2>/dev/null; {sys.executable} -m nlrn denoise in -o out --sigma 20"
    done = subprocess.run([*namespaces("-n"), "sh", "-c", run], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(digests(tmp_path / "out")) == 4


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM")
def test_a_second_signal_stops_at_once(tmp_path):
    """A first one waits for the file at hand to be dropped, which here takes ever."""
    pictures(tmp_path / "in", 2)
    script = """
import sys, time
from nlrn.restoration import Restorer
def image(*arguments):
    try:
        print("at work", flush=True)
        time.sleep(60)
    finally:
        time.sleep(60)
Restorer.image = image
from nlrn.cli import main
main(sys.argv[1:])
"""
    arguments = ["denoise", "in", "-o", "out", "--model", "gaussian", "--sigma", "20"]
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "at work\n"
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130  # without the second 60 s; PyTorch takes a while to end
