"""Publishing to and loading from a Hub: a server on this computer that keeps what it is given."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from nlrn import load_model
from nlrn.models.hub import HubName, parse_hub_name
from nlrn.models.weights_file import ModelError
from nlrn.models.zoo import MODELS

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs nlrn[hub]")

COMMIT = "a" * 40


class Handler(BaseHTTPRequestHandler):
    """The requests of create_repo, create_commit and hf_hub_download."""

    def log_message(self, *_):
        pass

    def answer(self, code, data=b"", **headers):
        self.send_response(code)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self):
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self._chunks()
        server, repository = self.server, "/".join(self.path.split("/")[3:5])
        server.seen.append(self.path)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            created = f"{asked.get('organization', 'me')}/{asked['name']}"
            reply = {"url": f"http://127.0.0.1/{created}", "name": created, "id": created}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            reply = {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            }
        elif self.path == "/api/validate-yaml":
            reply = {"errors": [], "warnings": []}
        else:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    server.files[f"{repository}/{value['path']}"] = base64.b64decode(value["content"])
            reply = {"commitOid": COMMIT, "commitUrl": f"http://127.0.0.1/{repository}/commit/{COMMIT}"}
        self.answer(200, json.dumps(reply).encode(), Content_Type="application/json")

    def _chunks(self):
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self):
        self.server.seen.append(self.path)
        if self.path.startswith("/api/") or self.path.count("/") < 5:
            self.answer(404)
            return
        user, name, _, revision, *path = self.path.strip("/").split("/")
        repository = f"{user}/{name}"
        data = self.server.files.get(f"{repository}/{'/'.join(path)}")
        if not any(key.startswith(f"{repository}/") for key in self.server.files):
            self.answer(404, X_Error_Code="RepoNotFound")
        elif revision not in ("main", "v1", COMMIT):
            self.answer(404, X_Error_Code="RevisionNotFound")
        elif data is None:
            self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        else:
            tag = f'"{hashlib.sha256(data).hexdigest()}"'
            self.answer(200, data, ETag=tag, X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server that huggingface_hub takes for the Hub, with an empty cache."""
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.seen = {}, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_published_and_loaded_again(hub, nlrn_command, monkeypatch):
    code, out, err = nlrn_command("push", "nlrn-small-gray", "--repo", "me/denoiser")
    assert (code, out) == (0, "published: hf://me/denoiser\n"), err
    names = {"model.safetensors", "config.json", "README.md", "LICENSE.md"}
    assert hub.files.keys() == {f"me/denoiser/{name}" for name in names}
    weights = hub.files["me/denoiser/model.safetensors"]
    assert hashlib.sha256(weights).hexdigest() == MODELS["nlrn-small-gray"].sha256
    assert json.loads(hub.files["me/denoiser/config.json"])["window_size"] == 21
    card = hub.files["me/denoiser/README.md"].decode()
    assert card.startswith('---\nlibrary_name: "nlrn"\nlicense: "other"\n')
    for text in ("non-commercial", 'load_model("hf://me/denoiser")', "## Accuracy"):
        assert text in card

    image = torch.rand(1, 1, 20, 24)
    expected = load_model("nlrn-small-gray")(image, 0.1)
    for name in ("hf://me/denoiser", "hf://me/denoiser@v1", "hf://me/denoiser@v1/model.safetensors"):
        assert torch.equal(load_model(name)(image, 0.1), expected)
    asked = len(hub.seen)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert torch.equal(load_model("hf://me/denoiser")(image, 0.1), expected)  # from the cache
    assert len(hub.seen) == asked


def test_errors_are_one_line(hub, nlrn_command, monkeypatch):
    hub.files["me/denoiser/notes.txt"] = b"x"
    hub.files["me/broken/model.safetensors"] = b"\x00" * 40
    for name, message in (
        ("hf://me/none", "no such repository"),
        ("hf://me/denoiser@v7", "no revision v7 there"),
        ("hf://me/denoiser", "no file model.safetensors there"),
        ("hf://me/broken", "is not a safetensors file"),
    ):
        with pytest.raises(ModelError, match=message) as failed:
            load_model(name)
        assert "\n" not in str(failed.value)
    hub.shutdown()
    hub.server_close()
    monkeypatch.setattr(
        "huggingface_hub.utils._http.time.sleep", lambda seconds: None
    )  # between its attempts
    with pytest.raises(
        ModelError, match=r"hf://me/other: not in the local cache, and the Hub cannot be"
    ) as failed:
        load_model("hf://me/other")
    code, _, err = nlrn_command("push", "nlrn-small-gray", "--repo", "me/denoiser")
    assert code == 2
    assert err.startswith("nlrn: cannot publish me/denoiser: ")
    assert err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"needs the package huggingface_hub: pip install 'nlrn\[hub\]'"):
        load_model("hf://me/denoiser")
    code, _, err = nlrn_command("push", "nlrn-small-gray", "--repo", "me/denoiser")
    assert (code, err) == (2, "nlrn: push needs the package huggingface_hub: pip install 'nlrn[hub]'\n")


def test_names():
    assert parse_hub_name("hf://a/b") == HubName("a/b", None, "model.safetensors")
    assert parse_hub_name("hf://a/b@v1.0/c/d.safetensors") == HubName("a/b", "v1.0", "c/d.safetensors")
    for bad in ("hf://a", "hf://a/", "hf://a/b/c.pt", "hf://a/b/../c.safetensors", "hf://../b", "hf://a/b@"):
        with pytest.raises(ModelError, match="expected hf://user/repository"):
            parse_hub_name(bad)


def test_what_is_not_published(nlrn_command):
    for arguments, message in (
        (("bm3d", "--repo", "me/x"), "bm3d has no weights, and push takes a network"),
        (("nlrn-gray", "--repo", "x"), "expected a repository user/name, got 'x'"),
        (("nlrn-gray", "--repo", "me/x@v1"), "expected a repository user/name, got 'me/x@v1'"),
    ):
        code, _, err = nlrn_command("push", *arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


def test_torch_hub_from_a_clone():
    root = Path(__file__).parents[2]
    model = torch.hub.load(str(root), "nlrn", "nlrn-small-gray", source="local")
    assert model.info.task == "denoise"
    assert model(torch.rand(1, 1, 8, 8), 0.1).shape == (1, 1, 8, 8)
