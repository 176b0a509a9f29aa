"""The non-local operation of the NLRN: windowed embedded-Gaussian attention with correlation propagation.

README.md beside this file has the equations, the border rule and the cost of each backend. Other rooms use the names
below and the estimates of `memory`; the backends are private.
"""

from .dispatch import (
    BACKENDS,
    DEFAULT_MAX_MEMORY,
    autocast_inputs,
    choose_backend,
    has_native_kernel,
    native_kernels,
    nonlocal_attention,
    refusals,
    runs_triton,
    serves_on_request,
)
from .state import AttentionState

__all__ = [
    "BACKENDS",
    "DEFAULT_MAX_MEMORY",
    "AttentionState",
    "autocast_inputs",
    "choose_backend",
    "has_native_kernel",
    "native_kernels",
    "nonlocal_attention",
    "refusals",
    "runs_triton",
    "serves_on_request",
]
