"""Networks as ONNX files: images of any size, the noise level as an input, standard operators alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...files.atomic import write_atomically
from ...models.contract import Shape
from ...models.learned_affinities import DEFAULT
from ...models.nlrn import NLRN
from ...models.weights_file import ModelError, config_to_json
from ...version import __version__
from ..provenance import Provenance, read_network
from .graph import graph_proto
from .network import network

OPSET = 17
# Of opset 17; readers of newer ones take it too.
IR_VERSION = 8
# The largest difference to PyTorch, in units of [0, 1].
TOLERANCE = 1e-4
# Batch, height and width of the images of the check: one pixel, less than a window, odd sides, several tiles.
SIZES = ((1, 1, 1), (2, 5, 3), (1, 17, 30), (2, 33, 16), (1, 40, 67))


@dataclass(frozen=True)
class Exported:
    """A written ONNX file.

    Args:
        path: the file.
        steps: after which it stops.
        difference: the largest one to PyTorch in onnxruntime, `None` where onnxruntime is not installed.
    """

    path: Path
    steps: int
    difference: float | None


def export_onnx(
    model: str | Path, path: str | Path, *, steps: int | None = None, overwrite: bool = False
) -> Exported:
    """Writes a network as an ONNX file, which is checked against PyTorch in onnxruntime where that is installed.

    Inputs: `image` `[batch, channels, height, width]`, float32 in [0, 1], and, for a model that takes a noise level,
    `sigma` `[batch]`, the standard deviation of the noise in the same units, brought into the model's range. Result:
    `restored`, like `image`, not clipped. Batch, height and width are free. A neighbour outside the image does not
    exist, as everywhere in nlrn. The metadata name the model, its sha256, terms of use and range of sigma.

    Args:
        model: a name of `nlrn models`, a weight file, or a name on the Hub.
        path: the file, `*.onnx`.
        steps: stop after this many recurrent steps, one of the model's heads; by default the last.
        overwrite: replace an existing file.

    Raises:
        ModelError: a method without weights, a network that has no such form (whole-image attention, patches, another
            affinity), and as `load_model`.
        ValueError: steps that are no head, another suffix.
        ImportError: the package `onnx` is not installed.
        RuntimeError: onnxruntime gives other numbers than PyTorch; nothing is written.
        FileExistsError: `path` exists and `overwrite` is false.
        OSError: the file cannot be written.

    Example:
        >>> from nlrn.interop.onnx import export_onnx
        >>> export_onnx("nlrn-small-gray", "small.onnx").difference < 1e-4  # doctest: +SKIP
        True
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"the file must be named *.onnx, got {path}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists")
    source = read_network(model, "export to ONNX")
    check_exportable(source.model, source.name)
    taken = source.model.info.check_steps(steps)
    assert taken is not None
    data = onnx_model(source, taken).SerializeToString()
    difference = largest_difference(data, source.model, taken)
    if difference is not None and not difference <= TOLERANCE:
        raise RuntimeError(
            f"onnxruntime differs from PyTorch by {difference:.1e}, at most {TOLERANCE} was expected; "
            f"{path} was not written"
        )
    write_atomically(path, data, overwrite=overwrite)
    return Exported(path, taken, difference)


def check_exportable(model: NLRN, name: str) -> None:
    """Raises `ModelError` for a network that has no ONNX form."""
    config = model.config
    if config.patch_protocol is not None:
        reason = "restores whole images as averages of patches; import it with a window"
    elif config.window_size is None:
        reason = "attends over the whole image (window_size None), and the ONNX form has a window"
    elif config.affinity != DEFAULT:
        reason = f"has the affinity {config.affinity}, and the ONNX form that of the paper, {DEFAULT}"
    else:
        return
    raise ModelError(f"{name} cannot be exported to ONNX: it {reason}")


def onnx_model(source: Provenance, steps: int) -> Any:
    """The `onnx.ModelProto` of a network that stops after so many steps.

    Raises:
        ImportError: the package `onnx` is not installed.
    """
    try:
        from onnx import checker, helper
    except ModuleNotFoundError as error:
        raise ImportError("export to ONNX needs the package onnx: pip install 'nlrn[onnx]'") from error

    proto = helper.make_model(
        graph_proto(network(source.model, steps), "nlrn"),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nlrn",
        producer_version=__version__,
        doc_string=f"{source.name}, {steps} steps. Use of the weights: {source.terms}.",
    )
    config = source.model.config
    about = {
        "nlrn.name": source.name,
        "nlrn.sha256": source.sha256,
        "nlrn.terms": source.terms,
        "nlrn.task": config.task,
        "nlrn.steps": str(steps),
        "nlrn.sigma_range": json.dumps(config.sigma_range),
        "nlrn.units": "image and sigma in [0, 1]; the result is not clipped",
        "nlrn.config": config_to_json(config),
    }
    helper.set_model_props(proto, about)
    checker.check_model(proto, full_check=True)
    return proto


def sample_image(shape: Shape, generator: torch.Generator) -> Tensor:
    """A picture of soft shapes with a little noise, `[B, C, H, W]` in [0, 1].

    White noise of full contrast would not do: a network for enlarging sharpens it until float32 itself, in PyTorch too,
    is off by 1e-3.
    """
    coarse = [-(-length // 6) + 1 for length in shape[2:]]
    shapes = torch.rand(*shape[:2], *coarse, generator=generator)
    soft = F.interpolate(shapes, shape[2:], mode="bilinear", align_corners=True)
    return (soft + 0.02 * torch.randn(shape, generator=generator)).clamp(0, 1)


@torch.inference_mode()
def largest_difference(data: bytes, model: NLRN, steps: int) -> float | None:
    """The largest difference to PyTorch of an ONNX file's bytes in onnxruntime, on images of `SIZES`.

    Returns:
        It in units of [0, 1], NaN included; `None` where onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    generator, config, largest = torch.Generator().manual_seed(0), model.config, torch.zeros(())
    for batch, height, width in SIZES:
        image = sample_image((batch, config.channels, height, width), generator)
        feeds, sigma = {"image": image.numpy()}, None
        if config.sigma_range is not None:
            low, high = config.sigma_range
            sigma = low + (high - low) * torch.rand(batch, generator=generator)
            feeds["sigma"] = sigma.numpy()
        (restored,) = session.run(None, feeds)
        difference = (torch.from_numpy(restored) - model(image, sigma, steps=steps)).abs().max()
        largest = torch.maximum(largest, difference)  # which keeps NaN
    return largest.item()
