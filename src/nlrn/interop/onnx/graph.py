"""An ONNX graph under construction: operators are called like functions, and their results are names."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# A name in the graph, or a constant.
Value = str | np.ndarray | np.generic


@dataclass(frozen=True)
class Node:
    """An operator with the names of its inputs and of its result."""

    kind: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


@dataclass
class Graph:
    """Operators in the order in which they run, and the constants that they read.

    Args:
        numbers: what makes names unique, in a graph and in the bodies of its loops alike.
    """

    numbers: Iterator[int] = field(default_factory=itertools.count)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def body(self) -> Graph:
        """The body of a loop: it may read every name of this graph."""
        return Graph(self.numbers)

    def name(self, kind: str) -> str:
        """A name that no other value has."""
        return f"{kind.lower()}_{next(self.numbers)}"

    def constant(self, array: np.ndarray | np.generic) -> str:
        """The name of a constant."""
        name = self.name("constant")
        self.constants[name] = np.array(array, order="C")
        return name

    def op(self, kind: str, *inputs: Value, output: str | None = None, **attributes: Any) -> str:
        """Appends an operator.

        Args:
            kind: its name in ONNX.
            inputs: names or constants.
            output: name of the result, by default a new one.
            attributes: those of the operator; the body of a loop is a `Body`.

        Returns:
            The name of its result.
        """
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        output = output or self.name(kind)
        self.nodes.append(Node(kind, names, output, attributes))
        return output


@dataclass(frozen=True)
class Typed:
    """An input or a result of a graph: its name, NumPy type, and shape (numbers and names; `None` where unknown)."""

    name: str
    dtype: type[np.generic]
    shape: list[int | str] | None = None


@dataclass(frozen=True)
class Body:
    """A graph as an attribute: the body of a loop."""

    graph: Graph
    inputs: list[Typed]
    outputs: list[Typed]


def graph_proto(body: Body, name: str) -> Any:
    """The `onnx.GraphProto` of a graph with its inputs and results."""
    from onnx import helper, numpy_helper

    def typed(value: Typed) -> Any:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        return helper.make_tensor_value_info(value.name, kind, value.shape)

    nodes = []
    for node in body.graph.nodes:
        attributes = {
            key: graph_proto(value, node.output) if isinstance(value, Body) else value
            for key, value in node.attributes.items()
        }
        nodes.append(helper.make_node(node.kind, node.inputs, [node.output], name=node.output, **attributes))
    constants = [numpy_helper.from_array(array, key) for key, array in body.graph.constants.items()]
    inputs, outputs = ([typed(value) for value in values] for values in (body.inputs, body.outputs))
    return helper.make_graph(nodes, name, inputs, outputs, constants)
