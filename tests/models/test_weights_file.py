"""Weight files: saving, loading, versions, refusing."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nlrn import NLRN, NLRNConfig, load_model
from nlrn.inference import restore
from nlrn.models.weights_file import (
    CONFIG_KEY,
    VERSION_KEY,
    ModelError,
    config_from_json,
    config_to_json,
    save_weights,
)
from nlrn.ops.nonlocal_attention import dispatch

CONFIG = NLRNConfig(
    width=8, embedding=4, num_steps=2, window_size=5, heads=(1, 2), noise_channel=True, sigma_range=(0.0, 0.2)
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = NLRN(CONFIG).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_weights(tmp_path / "model.safetensors", CONFIG, model.state_dict(), {"note": "test"})
    return tmp_path / "model.safetensors", model


def test_round_trip(saved):
    path, model = saved
    loaded = load_model(path)
    image = torch.rand(1, 1, 9, 9)
    assert loaded.config == CONFIG
    assert not loaded.training
    assert torch.equal(loaded(image, 0.1), model(image, 0.1))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def rewritten(path, version, **fields):
    """The file with another version, and more fields in its configuration."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata[CONFIG_KEY]) | fields
    save_file(load_file(path), path, {CONFIG_KEY: json.dumps(config), **version})


def test_a_file_without_a_version(saved):
    """As files before the first version of the format were."""
    path, model = saved
    config = dataclasses.asdict(CONFIG)
    del config["stride"], config["stem"]
    save_file(load_file(path), path, {CONFIG_KEY: json.dumps(config)})
    assert load_model(path).config == model.config


def test_a_newer_minor_version(saved, caplog):
    path, model = saved
    rewritten(path, {VERSION_KEY: "1.99"}, flavour="mint")
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(load_model(path)(image, 0.1), model(image, 0.1))
    assert "format 1.99; ignoring its field flavour" in caplog.text


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (
            {VERSION_KEY: "2.0"},
            r"weight-file format 2.0, and this nlrn reads up to 1\.\d; install a newer nlrn",
        ),
        ({VERSION_KEY: "new"}, "format version 'new'; expected major.minor"),
        ({}, "unusable model configuration .*flavour"),
    ],
    ids=["major", "nonsense", "unknown field"],
)
def test_versions_that_are_refused(saved, version, message):
    path, _ = saved
    rewritten(path, version, flavour="mint")
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_weights_of_half_the_size(saved):
    path, model = saved
    size = path.stat().st_size
    save_weights(path, CONFIG, model.state_dict(), dtype=torch.float16)
    assert path.stat().st_size < 0.8 * size  # norms have much of so small a network
    image = torch.rand(1, 1, 9, 9)
    loaded = load_model(path)
    assert next(loaded.parameters()).dtype == torch.float32
    torch.testing.assert_close(loaded(image, 0.1), model(image, 0.1), rtol=0, atol=2e-3)
    assert torch.equal(loaded.conv_a_norms[0].running_var, model.conv_a_norms[0].running_var)


def test_weights_beyond_float16(saved):
    path, model = saved
    before, state = path.read_bytes(), model.state_dict()
    state["conv_a.bias"][2] = 1e5
    with pytest.raises(ValueError, match=r"conv_a\.bias has a weight beyond the range of float16"):
        save_weights(path, CONFIG, state, dtype=torch.float16)
    assert path.read_bytes() == before


def test_config_as_json():
    config = dataclasses.replace(CONFIG, window_size=None, patch_protocol=(45, 7))
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_another_backend(saved, backend, monkeypatch):
    path, *_ = saved
    called, attention = [], getattr(dispatch, backend).attention

    def noted(*args, **kwargs):
        called.append(backend)
        return attention(*args, **kwargs)

    monkeypatch.setattr(getattr(dispatch, backend), "attention", noted)
    image = torch.rand(1, 1, 40, 9)
    model = load_model(path, backend=backend)
    assert (model(image, sigma=0.1) - load_model(path)(image, sigma=0.1)).abs().max() < 1e-5
    assert called
    called.clear()
    restored = restore(model, image, 0.1)
    assert (restored - load_model(path)(image, sigma=0.1)).abs().max() < 1e-5
    assert called


def test_unusable_backends(saved):
    path, *_ = saved
    with pytest.raises(ModelError, match=r"backend must be one of triton, native.*, got 'fast'"):
        load_model(path, backend="fast")
    with pytest.raises(ModelError, match="bm3d has no backend to choose"):
        load_model("bm3d", backend="native")
    with pytest.raises(ValueError, match="backend 'dense' cannot compute this: serves training"):
        restore(load_model(path, backend="dense"), torch.rand(1, 1, 8, 9), 0.1)


def test_another_window(saved):
    path, _ = saved
    assert load_model(path, window_size=3).config.window_size == 3
    assert load_model(path, window_size=None).config.window_size is None


def test_unknown_name():
    with pytest.raises(
        ModelError, match=r"no model and no weight file 'nope'; the models are: nlrn-small-gray"
    ):
        load_model("nope")


def test_directory(tmp_path):
    with pytest.raises(ModelError, match="no model and no weight file"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", pickle.dumps({"a": 1}), b"\xff" * 200], ids=["empty", "text", "pickle", "ones"]
)
def test_not_safetensors(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load_model(tmp_path / "model.safetensors")


def test_truncated(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="is not a safetensors file"):
        load_model(path)


def test_foreign_safetensors(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=f"has no '{CONFIG_KEY}'"):
        load_model(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "text",
    [config_to_json(CONFIG).replace('"width"', '"breadth"'), "[]", "{"],
    ids=["name", "list", "broken"],
)
def test_unusable_configuration(tmp_path, text):
    save_file({"weight": torch.zeros(3)}, tmp_path / "x.safetensors", {CONFIG_KEY: text})
    with pytest.raises(ModelError, match="unusable model configuration"):
        load_model(tmp_path / "x.safetensors")


def test_weights_that_do_not_fit(saved):
    path, model = saved
    state = model.state_dict()
    del state["conv_a.bias"]
    state["extra"] = torch.zeros(1)
    state["conv_b.bias"] = torch.zeros(3)
    save_weights(path, CONFIG, state)
    with pytest.raises(ModelError, match=r"missing: conv_a.bias; unknown: extra; wrong shape: conv_b.bias"):
        load_model(path)


def test_nan_weights(saved):
    path, model = saved
    state = model.state_dict()
    state["conv_a.bias"][2] = float("nan")
    save_weights(path, CONFIG, state)
    with pytest.raises(ModelError, match=r"NaN or Inf: conv_a\.bias"):
        load_model(path)


def test_failed_write_leaves_the_old_file(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_weights(path, CONFIG, model.state_dict())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
