"""Official checkpoints: the reader, and equality with the official graphs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nlrn import load_model
from nlrn.inference import restore
from nlrn.interop.official import import_official
from nlrn.interop.tf_checkpoint import CheckpointError, crc32c, read_checkpoint
from nlrn.models.weights_file import build, save_weights

V0 = Path(__file__).resolve().parents[1] / "data" / "official_tf" / "v0_corr_T5"


def largest_relative_error(prefix: Path, **options) -> float:
    """Against the official graph's output, relative to its range."""
    official = import_official(prefix / "model", **options)
    model = build(official.config, official.tensors, "test")
    io = np.load(prefix / "io.npz")
    white = official.input_range
    image = torch.from_numpy(io["input"].transpose(0, 3, 1, 2)) / white
    output = restore(model, image, patches=None)
    if official.generation == "v0":
        output = (output - image) * white  # that graph returns the residual alone
    expected = torch.from_numpy(io["output"].transpose(0, 3, 1, 2))
    return ((output - expected).abs().max() / (expected.max() - expected.min())).item()


def test_first_generation_equals_the_official_graph():
    assert largest_relative_error(V0) < 1e-4


def test_second_generation_equals_the_official_graph(shared_dir):
    assert largest_relative_error(shared_dir / "fixtures" / "official_tf" / "new_T12") < 1e-4


@pytest.mark.parametrize("change", [{"correlation_propagation": False}, {"window_size": 9}])
def test_every_guess_matters(change):
    assert largest_relative_error(V0, **change) > 1e-3


def test_the_range_of_the_images_matters():
    image = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    outputs = [
        build(official.config, official.tensors, "")(image)
        for official in (import_official(V0, input_range=white) for white in (1.0, 255.0))
    ]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_what_is_read_from_the_shapes():
    official = import_official(V0)
    config = official.config
    assert official.generation == "v0"
    assert official.input_range == 255
    assert (config.channels, config.width, config.embedding, config.num_steps) == (1, 128, 64, 5)
    assert config.correlation_propagation
    assert config.window_size is None
    assert config.patch_protocol == (45, 7)
    assert config.sigma_range is None


def test_saved_weights_restore_whole_images_by_the_official_protocol(tmp_path):
    official = import_official(V0)
    save_weights(tmp_path / "w.safetensors", official.config, official.tensors)
    image = torch.rand(1, 1, 47, 46)
    model = load_model(tmp_path / "w.safetensors")
    assert torch.equal(restore(model, image), restore(model, image, patches=(45, 7)))
    windowed = load_model(tmp_path / "w.safetensors", window_size=45)
    assert windowed.config.patch_protocol is None


@pytest.mark.parametrize("name", ["model", "model.index", "model.data-00000-of-00001", ""])
def test_every_way_of_naming_a_checkpoint(name):
    assert "model/conv1/kernel" in read_checkpoint(V0 / name)


def test_crc32c():
    assert crc32c(b"123456789") == 0xE3069283
    rng = np.random.default_rng(0)
    for size in (0, 1, 31, 8191, 8192, 20_000):
        data = rng.bytes(size)
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        assert crc32c(data) == crc ^ 0xFFFFFFFF


@pytest.fixture
def copy(tmp_path):
    target = tmp_path / "checkpoint"
    target.mkdir()
    for file in V0.glob("model.*"):
        shutil.copyfile(file, target / file.name)
    return target


def damage(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(bytes(data))


def test_any_flipped_bit_is_noticed(copy):
    """300 random single-bit errors: the same values or a clear error, never other values."""
    expected = read_checkpoint(copy)
    rng = np.random.default_rng(0)
    noticed = 0
    for name, trials in (("model.index", 285), ("model.data-00000-of-00001", 15)):
        file = copy / name
        original = file.read_bytes()
        for place in rng.integers(0, len(original), trials):
            damage(file, int(place))
            try:
                values = read_checkpoint(copy)
            except CheckpointError:
                noticed += 1
            else:
                assert values.keys() == expected.keys()
                assert all(np.array_equal(values[k], expected[k]) for k in expected)
            file.write_bytes(original)
    assert noticed > 280


@pytest.mark.parametrize("name", ["model.index", "model.data-00000-of-00001"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated(copy, name, share):
    file = copy / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"truncated|not the index"):
        read_checkpoint(copy)


def test_missing_parts(copy, tmp_path):
    (copy / "model.data-00000-of-00001").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*data-00000-of-00001: No such file"):
        read_checkpoint(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"single checkpoint .* found none"):
        read_checkpoint(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize(
    "content", [b"hello\n", b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100)], ids=["text", "pickle", "zip"]
)
def test_foreign_files(tmp_path, content):
    (tmp_path / "model.index").write_bytes(content)
    with pytest.raises(CheckpointError, match="not the index of a TensorFlow V2 checkpoint"):
        read_checkpoint(tmp_path / "model")
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="not part of a TensorFlow V2 checkpoint"):
        read_checkpoint(tmp_path / "weights.pt")


def test_another_network(monkeypatch):
    def variables(change):
        original = read_checkpoint(V0)
        change(original)
        monkeypatch.setattr("nlrn.interop.official.read_checkpoint", lambda path: original)
        return import_official("x")

    with pytest.raises(CheckpointError, match="lacks 1 variables of an NLRN: rnn/RB1_a/bias"):
        variables(lambda v: v.pop("model/rnn/RB1_a/bias"))
    with pytest.raises(CheckpointError, match="that an NLRN does not: extra"):
        variables(lambda v: v.update({"model/extra": np.zeros(1)}))
    with pytest.raises(CheckpointError, match="holds no official NLRN in scope"):
        variables(lambda v: v.pop("model/conv1/kernel"))
    with pytest.raises(CheckpointError, match="14 batch norms"):
        variables(lambda v: v.pop("model/rnn/batch_normalization_3/gamma"))
    assert variables(
        lambda v: v.update({"model/conv1/kernel/Adam_1": np.zeros(1), "global_step": np.zeros(())})
    )
