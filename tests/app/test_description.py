"""The HTTP API against its description, by schemathesis: whatever it may be asked, it does not fail."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest
from serving import running

# It answers as the description says, in kind and in form, and never that it failed itself.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


@pytest.mark.parametrize("examples", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_no_request_makes_the_server_fail(examples, tiny_grey, tmp_path):
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("needs schemathesis (python -m pip install schemathesis)")
    with running(grey=tiny_grey) as address:
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "run",
            f"{address}openapi.json",
            "--url",
            address,
        ]
        command += ["--checks", CHECKS, "--phases", "examples,fuzzing", "--max-examples", str(examples)]
        command += ["--seed", "1", "--no-color", "--request-timeout", "60", "--suppress-health-check", "all"]
        ran = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Tested: 13" in ran.stdout, ran.stdout
