"""What is said of a path or a step that failed."""

from __future__ import annotations

import subprocess

import pytest

from bench.failures import FAILURES, why


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no iptables here >&2; exit 6", "no iptables here"),
        ("exit 6", "Command '['sh', '-c', 'exit 6']' returned"),
    ],
)
def test_a_program_that_refuses_is_quoted(script: str, words: str) -> None:
    with pytest.raises(FAILURES) as caught:
        subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True)
    assert why(caught.value).startswith(words)
