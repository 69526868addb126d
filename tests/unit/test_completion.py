"""Shells complete commands and services; what cannot be known completes to nothing, in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SWAPPER = str(Path(sys.executable).with_name("swapper"))
CONFIG = """
[services.game]
ports = [{ protocol = "udp", public = 1000, blue = 1001, green = 1002 }]
[services.gate]
ports = [{ protocol = "udp", public = 1010, blue = 1011, green = 1012 }]
"""
IN_BASH = """
eval "$(_SWAPPER_COMPLETE=bash_source "$1")"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_swapper_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "swapper.toml"
    path.write_text(CONFIG)
    return path


def completed(config: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    done = subprocess.run(
        ["bash", "-c", IN_BASH, "bash", SWAPPER, *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "SWAPPER_CONFIG": str(config)},
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("command", ["apply", "swap", "status", "remove", "deploy", "rollback", "history"])
def test_services_are_those_of_the_configuration(config: Path, command: str) -> None:
    assert completed(config, command, "ga") == ["game", "gate"]
    assert completed(config, command, "gam") == ["game"]
    assert completed(config, command, "x") == []


def test_the_configuration_that_is_named_counts(config: Path, tmp_path: Path) -> None:
    elsewhere = config.rename(tmp_path / "elsewhere.toml")
    assert completed(config, "swap", "--config", str(elsewhere), "ga") == ["game", "gate"]
    assert completed(config, "swap", "ga") == []


def test_commands_are_completed(config: Path) -> None:
    assert completed(config, "de") == ["deploy"]


@pytest.mark.parametrize("text", ["[services.game", "services = 1", "\udcff"], ids=["no TOML", "not valid", "no text"])
def test_a_configuration_that_cannot_be_read_completes_to_nothing(config: Path, text: str) -> None:
    config.write_bytes(text.encode(errors="surrogateescape"))
    assert completed(config, "deploy", "") == []
