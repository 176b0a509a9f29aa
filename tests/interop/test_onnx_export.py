"""Networks as ONNX files: the numbers of PyTorch, what the files say, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest
import torch

from nlrn import NLRN, NLRNConfig, load_model
from nlrn.interop.onnx import export_onnx, sample_image
from nlrn.models.weights_file import ModelError, save_weights
from nlrn.models.zoo import MODELS

onnx = pytest.importorskip("onnx", reason="needs nlrn[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs nlrn[onnx]")

TOLERANCE = 1e-4
REST = ["nlrn-gray", "nlrn-small-photo", "nlrn-small-upscale", "nlrn-small-dejpeg-color"]


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(run, model, shape, sigma, **options):
    """The largest one between onnxruntime and PyTorch for an image."""
    image = sample_image(shape, torch.Generator().manual_seed(sum(shape)))
    feeds = {"image": image.numpy()}
    if sigma is not None:
        feeds["sigma"] = np.full(shape[0], sigma, np.float32)
    (restored,) = run.run(None, feeds)
    assert restored.shape == shape
    assert restored.dtype == np.float32
    return (torch.from_numpy(restored) - model(image, sigma, **options)).abs().max().item()


def small_network(path, **changes):
    """The weight file of a network with random weights and norms that do something."""
    config = NLRNConfig(**{"width": 8, "embedding": 4, "num_steps": 3, "window_size": 5, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NLRN(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        for name, value in model.named_buffers():
            if "running" in name:
                torch.nn.init.uniform_(value, 0.5, 1.5)
    save_weights(path, config, model.state_dict())
    return path


@pytest.mark.parametrize(
    "name",
    ["nlrn-small-gray", "nlrn-color", *(pytest.param(name, marks=pytest.mark.slow) for name in REST)],
)
def test_equal_to_pytorch(name, tmp_path):
    exported = export_onnx(name, tmp_path / "m.onnx")
    assert exported.difference < TOLERANCE
    model, run = load_model(name), session(exported.path)
    channels, sigma = model.config.channels, None if MODELS[name].sigma == "" else 0.1
    assert [x.name for x in run.get_inputs()] == ["image", *(["sigma"] if sigma else [])]
    # Smaller than the window (21 pixels, 30 at stride 2), odd, whole tiles, one more than whole tiles.
    for size in ((1, 1), (1, 9), (13, 6), (32, 48), (35, 33)):
        assert difference(run, model, (1, channels, *size), sigma) < TOLERANCE, size


def test_steps_choose_the_head(tmp_path):
    exported = export_onnx("nlrn-small-gray", tmp_path / "m.onnx", steps=2)
    model, run = load_model("nlrn-small-gray"), session(exported.path)
    assert exported.steps == 2
    assert difference(run, model, (1, 1, 20, 30), 0.1, steps=2) < TOLERANCE
    assert difference(run, model, (1, 1, 20, 30), 0.1, steps=6) > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"correlation_propagation": False},
        {"window_size": 1},
        {"window_size": 35},
        {"stem": 6},
        {"stem": 6, "stride": 3, "channels": 3},
        {"num_steps": 1},
    ],
    ids=str,
)
def test_other_networks(changes, tmp_path):
    weights = small_network(tmp_path / "w.safetensors", **changes)
    exported = export_onnx(weights, tmp_path / "m.onnx")
    model, run = load_model(weights), session(exported.path)
    shape = (2, model.config.channels, 19, 37)
    restored = difference(run, model, shape, None)
    assert restored < TOLERANCE
    image = torch.rand(shape)
    assert (model(image) - image).abs().max() > 100 * TOLERANCE  # the network does something


def test_sigma_is_one_per_image_and_is_brought_into_the_range(tmp_path):
    model = load_model("nlrn-small-gray")
    run = session(export_onnx("nlrn-small-gray", tmp_path / "m.onnx").path)
    low, high = model.config.sigma_range
    image = torch.rand(3, 1, 18, 20)
    sigma = torch.tensor([low, 0.1, high])
    (restored,) = run.run(None, {"image": image.numpy(), "sigma": sigma.numpy()})
    assert (torch.from_numpy(restored) - model(image, sigma)).abs().max() < TOLERANCE
    beyond = np.array([-1.0, 0.1, 5.0], np.float32)
    assert np.array_equal(run.run(None, {"image": image.numpy(), "sigma": beyond})[0], restored)
    assert np.abs(restored[0] - restored[2]).max() > 0  # other images, other levels


def test_neighbours_outside_that_exist_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("nlrn.interop.onnx.attention.OUTSIDE", 0.0)
    with pytest.raises(RuntimeError, match="onnxruntime differs from PyTorch by"):
        export_onnx("nlrn-small-gray", tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_the_file_says(tmp_path):
    exported = export_onnx("nlrn-small-gray", tmp_path / "m.onnx", steps=4)
    proto = onnx.load(exported.path)
    about = {entry.key: entry.value for entry in proto.metadata_props}
    entry = MODELS["nlrn-small-gray"]
    assert (about["nlrn.name"], about["nlrn.sha256"]) == ("nlrn-small-gray", entry.sha256)
    assert about["nlrn.terms"] == entry.licence
    assert "non-commercial" in proto.doc_string
    assert json.loads(about["nlrn.sigma_range"]) == [0.0, 55 / 255]
    assert about["nlrn.steps"] == "4"
    assert proto.opset_import[0].version == 17
    assert {node.domain for node in proto.graph.node} == {""}  # standard operators alone
    shape = [d.dim_param or d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 1, "height", "width"]


def test_a_weight_file_keeps_its_own_terms(tmp_path):
    weights = small_network(tmp_path / "mine.safetensors")
    about = onnx.load(export_onnx(weights, tmp_path / "m.onnx").path).metadata_props
    found = {entry.key: entry.value for entry in about}
    assert found["nlrn.sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["nlrn.name"] == "mine"
    assert "not stated" in found["nlrn.terms"]
    assert found["nlrn.sigma_range"] == "null"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_size": None}, "attends over the whole image"),
        ({"patch_protocol": (43, 7)}, "averages of patches"),
        ({"affinity": "gaussian"}, "affinity gaussian"),
    ],
    ids=str,
)
def test_networks_without_such_a_form(changes, message, tmp_path):
    weights = small_network(tmp_path / "w.safetensors", **changes)
    with pytest.raises(ModelError, match=rf"^w cannot be exported to ONNX: .*{message}"):
        export_onnx(weights, tmp_path / "m.onnx")


def test_a_file_is_replaced_on_request_alone(tmp_path):
    weights, path = small_network(tmp_path / "w.safetensors"), tmp_path / "m.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        export_onnx(weights, path)
    assert path.read_bytes() == b"mine"
    assert export_onnx(weights, path, overwrite=True).difference < TOLERANCE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "w.safetensors"]


def test_the_command(nlrn_command, tmp_path):
    weights = small_network(tmp_path / "w.safetensors", heads=(1, 3))
    done = nlrn_command("export-onnx", weights, "-o", tmp_path / "m.onnx", "--steps", 1)
    assert done == (0, done[1], "")
    assert "1 steps, opset 17" in done[1]
    assert "largest difference to PyTorch" in done[1]
    for arguments, message in (
        ((weights, "-o", tmp_path / "m.onnx"), "exists; pass --overwrite"),
        (
            ("bm3d", "-o", tmp_path / "n.onnx"),
            "bm3d has no weights, and export to ONNX takes a network: nlrn-",
        ),
        ((weights, "-o", tmp_path / "n.pt"), "must be named *.onnx"),
        ((weights, "-o", tmp_path / "n.onnx", "--steps", 2), "stop after 1, 3 steps"),
        ((weights, "-o", tmp_path / "no" / "n.onnx"), "No such file or directory"),
        (("nlrn-none", "-o", tmp_path / "n.onnx"), "no model and no weight file"),
    ):
        code, _, error = nlrn_command("export-onnx", *arguments)
        assert code == 2
        assert message in error
        assert error.count("\n") == 1
    weights.write_bytes(weights.read_bytes()[:200])
    code, _, error = nlrn_command("export-onnx", weights, "-o", tmp_path / "n.onnx")
    assert (code, error.count("\n")) == (2, 1)
    assert "is not a safetensors file" in error
    assert not (tmp_path / "n.onnx").exists()


def test_without_the_packages(nlrn_command, tmp_path, monkeypatch):
    weights = small_network(tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, out, _ = nlrn_command("export-onnx", weights, "-o", tmp_path / "m.onnx")
    assert code == 0
    assert "not compared with PyTorch: onnxruntime is not installed" in out
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, error = nlrn_command("export-onnx", weights, "-o", tmp_path / "n.onnx")
    assert code == 2
    assert error == "nlrn: export to ONNX needs the package onnx: pip install 'nlrn[onnx]'\n"
