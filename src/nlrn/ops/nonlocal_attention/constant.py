"""The mark of functions whose results `torch.compile` takes for constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


def constant_when_compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`torch.compiler.assume_constant_result` without its import of the compiler, which takes as long as PyTorch's."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
