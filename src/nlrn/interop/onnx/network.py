"""An `NLRN` as an ONNX graph: that of `nlrn.models.nlrn`, with its batch norms folded as inference folds them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...inference.folding import Folded, FoldedStep, FullResolution, Kernel, fold
from ...models.nlrn import NLRN
from .attention import Tiles, concat, crop, ints, size, whole
from .graph import Body, Graph, Typed


def network(model: NLRN, steps: int) -> Body:
    """The graph of a network that stops after so many steps.

    Args:
        model: with a window and the affinity of the paper.
        steps: one of its heads.

    Returns:
        A graph with the inputs `image` `[batch, channels, height, width]` and, for a model with a noise channel,
        `sigma` `[batch]`, and the result `restored`.
    """
    graph, folded, config = Graph(), fold(model, steps, torch.float32), model.config
    height, width = size(graph, "image", 2), size(graph, "image", 3)
    encoded = _encode(graph, model, _complete(graph, "image", config.stride))
    if folded.around is None:
        residual = _conv(
            graph, _trunk(graph, model, folded, _conv(graph, encoded, folded.start)), folded.last
        )
    else:
        around = folded.around
        features = _conv(graph, _relu(graph, _conv(graph, encoded, around.stem_a)), around.stem_b)
        start = _conv(graph, _relu(graph, features), folded.start, stride=config.stride)
        full = _full(graph, _trunk(graph, model, folded, start), features, around, config.stride)
        residual = crop(graph, _conv(graph, full, folded.last), height, width)
    graph.op("Add", "image", residual, output="restored")
    shape: list[int | str] = ["batch", config.channels, "height", "width"]
    inputs = [Typed("image", np.float32, shape)]
    if config.noise_channel:
        inputs.append(Typed("sigma", np.float32, ["batch"]))
    return Body(graph, inputs, [Typed("restored", np.float32, shape)])


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array


def _conv(graph: Graph, image: str, kernel: Kernel, *, stride: int = 1) -> str:
    """A convolution that keeps the size, or one of parts of `stride` by `stride` pixels."""
    weight = _array(kernel.weight)
    pad = 0 if stride > 1 else weight.shape[-1] // 2
    return graph.op("Conv", image, weight, _array(kernel.bias), pads=[pad] * 4, strides=[stride] * 2)


def _relu(graph: Graph, image: str) -> str:
    return graph.op("Relu", image)


def _complete(graph: Graph, image: str, stride: int) -> str:
    """The image continued by its last row and column until whole positions cover it (`NLRN.pad`)."""
    if stride == 1:
        return image
    below, right = (
        graph.op("Sub", graph.op("Mul", whole(graph, length, stride), ints(stride)), length)
        for length in (size(graph, image, 2), size(graph, image, 3))
    )
    return graph.op("Pad", image, concat(graph, ints(0, 0, 0, 0, 0, 0), below, right), mode="edge")


def _encode(graph: Graph, model: NLRN, image: str) -> str:
    """The input of the first convolution (`NLRN.encode`), sigma brought into the model's range."""
    encoded = image
    if model.config.stem is not None:
        encoded = graph.op("Sub", encoded, np.full(1, 0.5, np.float32))
    if model.config.sigma_range is not None:
        low, high = (np.float32(x) for x in model.config.sigma_range)
        level = graph.op("Mul", graph.op("Clip", "sigma", low, high), np.full(1, 4, np.float32))
        sides = [size(graph, image, axis) for axis in (0, 2, 3)]
        shape = concat(graph, sides[0], ints(1), *sides[1:])
        channel = graph.op("Expand", graph.op("Reshape", level, ints(-1, 1, 1, 1)), shape)
        encoded = concat(graph, encoded, channel, axis=1)
    if model.config.stem is not None:
        return encoded
    norm = model.input_norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    parameters = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return graph.op("BatchNormalization", encoded, *map(_array, parameters), epsilon=norm.eps)


def _trunk(graph: Graph, model: NLRN, folded: Folded, start: str) -> str:
    """The recurrence, from s^0 to the input of the head."""
    config = model.config
    assert config.window_size is not None
    tiles = Tiles.of(graph, start, config.window_size)
    query, key, channels = tiles.query, tiles.key, 1
    norm = folded.first
    features = graph.op("Add", graph.op("Mul", start, _array(norm.scale)), _array(norm.shift))
    features = _relu(graph, features)
    for step in folded.steps:
        if not config.correlation_propagation:
            query, key, channels = tiles.query, tiles.key, 1
        query = concat(graph, query, tiles.pad_query(_conv(graph, features, folded.query)), axis=1)
        key = concat(graph, key, tiles.pad_key(_conv(graph, features, folded.key)), axis=1)
        channels += config.embedding
        value = tiles.pad_key(_conv(graph, features, step.value))
        average = tiles.average(query, key, value, channels, config.width)
        features = _step(graph, step, features, average, start)
    return features


def _step(graph: Graph, step: FoldedStep, features: str, average: str, start: str) -> str:
    """The rest of a step after the non-local operation."""
    added = graph.op("Add", average, graph.op("Mul", features, _array(step.features)))
    change = _conv(graph, _relu(graph, _conv(graph, added, step.conv_a)), step.conv_b)
    return _relu(graph, graph.op("Add", change, graph.op("Mul", start, _array(step.start))))


def _full(graph: Graph, rectified: str, features: str, around: FullResolution, stride: int) -> str:
    """The tail but for its last convolution."""
    parts = _conv(graph, rectified, around.up)
    if stride > 1:
        parts = graph.op("DepthToSpace", parts, blocksize=stride, mode="DCR")
    full = _relu(graph, graph.op("Add", features, parts))
    return _relu(graph, _conv(graph, full, around.tail_a))
