"""The harness and the bench without the packages of their extra."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
import os
os.geteuid = lambda: 0  # whoever runs the tests: the package is missed only after that question
from {module} import main
sys.argv[0] = "command"
main()
"""


@pytest.mark.parametrize(
    ("module", "command", "word"),
    [
        ("harness.cli", "swapper-harness", "matrix"),
        ("harness.cli", "swapper-harness", "run"),
        ("bench.cli", "swapper-bench", "run"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_brings_it(module: str, command: str, word: str) -> None:
    argv = [sys.executable, "-c", WITHOUT_NUMPY.format(module=module), word]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert done.stderr == f"{command} needs numpy; bring it with, where Swapper's source is: pip install '.[harness]'\n"
