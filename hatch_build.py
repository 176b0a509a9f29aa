"""Compiles the CPU kernel when the package is built; without a compiler the package works all the same, slower."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OPERATION = Path("src") / "nlrn" / "ops" / "nonlocal_attention"


class CompileKernels(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        # By its path, because importing the package would need PyTorch.
        spec = importlib.util.spec_from_file_location("kernels", Path(self.root) / OPERATION / "compile.py")
        assert spec is not None
        assert spec.loader is not None
        kernels = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernels)
        try:
            kernels.compile_kernels()
        except kernels.CompileError as error:
            self.app.display_warning(f"the CPU kernel is left out: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
