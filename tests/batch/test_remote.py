"""Inputs and outputs by URL: `memory://` and `file://`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from nlrn.cli import main
from nlrn.files.images import Image, encode_image

fsspec = pytest.importorskip("fsspec", reason="needs fsspec")

RNG = np.random.default_rng(0)
PICTURES = {
    name: encode_image(Image(RNG.integers(0, 256, (20, 24), dtype=np.uint8)), "PNG")
    for name in ("a.png", "sub/b.png", "sub/deep/c.png")
}


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path, monkeypatch):
    """The URL of an empty place, which has pictures in `in` and a text."""
    monkeypatch.chdir(tmp_path)
    root = f"memory://{tmp_path.name}" if request.param == "memory" else f"file://{tmp_path}/store"
    for name, data in {**PICTURES, "text.txt": b"no picture", "sub/.hidden.png": b""}.items():
        with fsspec.open(f"{root}/in/{name}", "wb", auto_mkdir=True) as file:
            file.write(data)
    for name, data in PICTURES.items():
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def listed(url: str) -> dict[str, bytes]:
    """The files below a URL, hidden ones too."""
    system, path = fsspec.core.url_to_fs(url)
    if not system.exists(path):
        return {}
    return {os.path.relpath(name, path): system.cat_file(name) for name in system.find(path)}


def local(folder: str) -> dict[str, bytes]:
    paths = (path for path in Path(folder).rglob("*") if path.is_file() and ".nlrn" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture
def nlrn(capfd, tmp_path):
    """Runs `nlrn denoise` with the cheapest method: exit code, standard error, objects of `--json`."""

    def run(*arguments: str) -> tuple[int, str, list[dict]]:
        with pytest.raises(SystemExit) as stopped:
            main(["denoise", *arguments, "--model", "gaussian", "--sigma", "20"])
        captured = capfd.readouterr()
        return stopped.value.code, captured.err, [json.loads(line) for line in captured.out.splitlines()]

    return run


def test_from_store_to_store_and_to_a_folder(nlrn, store):
    assert nlrn("here", "-r", "-o", "expected")[0] == 0
    expected = local("expected")
    assert set(expected) == set(PICTURES)
    code, err, lines = nlrn(f"{store}/in", "-r", "-o", f"{store}/out", "--json")
    assert code == 0, err
    assert listed(f"{store}/out") == expected
    assert {(line["source"], line["target"]) for line in lines if line["event"] == "restored"} == {
        (f"{store}/in/{name}", f"{store}/out/{name}") for name in PICTURES
    }
    assert nlrn(f"{store}/in", "-r", "-o", "fetched")[0] == 0
    assert local("fetched") == expected
    assert nlrn("here", "-r", "-o", f"{store}/sent")[0] == 0
    assert listed(f"{store}/sent") == expected


def test_one_object_a_pattern_and_a_folder_without_its_subfolders(nlrn, store):
    assert nlrn(f"{store}/in/a.png", "-o", f"{store}/one.tif")[0] == 0
    assert listed(store)["one.tif"][:2] == b"II"
    code, err, _ = nlrn(f"{store}/in/a.png", "-o", f"{store}/one.tif", "--format", "png", "--overwrite")
    assert code == 2
    assert f"{store}/one.tif is named as TIFF" in err
    assert nlrn(f"{store}/in/a.png", "-o", f"{store}/other", "--format", "tiff")[0] == 0
    assert {name.split(".")[0]: data[:2] for name, data in listed(f"{store}/other").items()} == {"a": b"II"}
    assert nlrn(f"{store}/in/sub/*.png", "-o", f"{store}/some")[0] == 0
    assert set(listed(f"{store}/some")) == {"b.png"}
    assert nlrn(f"{store}/in", "-o", f"{store}/flat")[0] == 0
    assert set(listed(f"{store}/flat")) == {"a.png"}


def test_a_bad_object_is_named_and_what_is_left_is_done(nlrn, store):
    with fsspec.open(f"{store}/in/sub/bad.png", "wb") as file:
        file.write(b"no picture")
    code, err, _ = nlrn(f"{store}/in", "-r", "-o", f"{store}/out")
    assert code == 3
    assert f"failed: {store}/in/sub/bad.png" in err
    assert "nlrn-" not in err.split("failed:")[1].split("\n")[0]  # the copy
    assert set(listed(f"{store}/out")) == set(PICTURES)
    assert nlrn(f"{store}/in", "-r", "-o", f"{store}/out")[0] == 2
    with fsspec.open(f"{store}/in/sub/bad.png", "wb") as file:
        file.write(PICTURES["a.png"])
    code, err, _ = nlrn(f"{store}/in", "-r", "-o", f"{store}/out", "--skip-existing")
    assert code == 0
    assert "existing outputs skipped: 3" in err
    assert len(listed(f"{store}/out")) == 4


def test_an_upload_that_fails_leaves_nothing(nlrn, store, monkeypatch):
    system, _ = fsspec.core.url_to_fs(store)
    put = type(system).put_file

    def half(self, source, target, **options):
        with open(source, "rb") as file:
            self.pipe_file(target, file.read()[:50])
        raise RuntimeError("connection lost")

    monkeypatch.setattr(type(system), "put_file", half)
    code, err, _ = nlrn(f"{store}/in", "-o", f"{store}/out")
    assert code == 4
    assert f"cannot write {store}/out/a.png: connection lost" in err
    assert listed(f"{store}/out") == {}
    monkeypatch.setattr(type(system), "put_file", put)
    assert nlrn(f"{store}/in", "-o", f"{store}/out")[0] == 0


def test_an_object_that_comes_meanwhile_is_not_replaced(nlrn, store, monkeypatch):
    from nlrn.restoration import Restorer

    whole = Restorer.image

    def image(self, *arguments):
        with fsspec.open(f"{store}/out/a.png", "wb", auto_mkdir=True) as file:
            file.write(b"mine")
        return whole(self, *arguments)

    monkeypatch.setattr(Restorer, "image", image)
    code, err, _ = nlrn(f"{store}/in", "-o", f"{store}/out")
    assert code == 4
    assert "out/a.png exists" in err
    assert listed(f"{store}/out") == {"a.png": b"mine"}


def test_a_dry_run_and_shards(nlrn, store):
    code, err, _ = nlrn(f"{store}/in", "-r", "-o", f"{store}/out", "--dry-run")
    assert code == 0
    assert "3 of 3 files would be restored" in err
    assert listed(f"{store}/out") == {}
    for part in range(2):
        assert nlrn(f"{store}/in", "-r", "-o", f"{store}/out", "--shard", f"{part}/2")[0] == 0
    assert set(listed(f"{store}/out")) == set(PICTURES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["memory://none", "-o", "out"], "memory://none does not exist"),
        (["nope://bucket/a.png", "-o", "out"], "cannot open nope://bucket/a.png: Protocol not known: nope"),
        (["memory://none"], "URLs are restored into a folder or another URL"),
        (["memory://none", "-o", "-"], "URLs are restored into a folder or another URL"),
        (["memory://none", "-o", "out", "--resume"], "with URLs, --skip-existing does what is left"),
    ],
)
def test_what_cannot_start(nlrn, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, err, _ = nlrn(*arguments)
    assert code == 2
    assert message in err


def test_without_fsspec(nlrn, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    code, err, _ = nlrn("memory://x", "-o", str(tmp_path / "out"))
    assert code == 2
    assert "memory://x needs fsspec: pip install 'nlrn[remote]'" in err
