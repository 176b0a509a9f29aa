"""Weight files: saving, loading, refusing."""

from __future__ import annotations

import dataclasses
import pickle

import pytest
import torch
from safetensors.torch import save_file

from nlrn import NLRN, NLRNConfig, load_model
from nlrn.models.zoo import CONFIG_KEY, ModelError, config_from_json, config_to_json, save_weights

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


def test_config_as_json():
    config = dataclasses.replace(CONFIG, window_size=None, patch_protocol=(45, 7))
    assert config_from_json(config_to_json(config)) == config


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
