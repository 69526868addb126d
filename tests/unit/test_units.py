"""The units of systemd are valid and tight, and name the commands that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import swapper.cli

ROOT = Path(__file__).parents[2]
SWAPPER = str(Path(sys.executable).with_name("swapper"))
UNITS = sorted((ROOT / "systemd").glob("*.service"))
EXPOSURE = 50  # of 100, as systemd-analyze counts: 5.0


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit as it would be installed here, where `swapper` is elsewhere; the other ones are beside it."""
    for path in UNITS:
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/local/bin/swapper", SWAPPER))
    return Path(tmp_path / request.param.name)


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def test_there_are_two() -> None:
    assert [path.name for path in UNITS] == ["swapper-apply.service", "swapper-serve.service"]


def test_systemd_finds_no_mistake(unit: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=one", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_mistake_would_be_found(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("RestartSec=5", "RestartSec=soon"))
    assert "Failed to parse sec value" in analyze("verify", "--man=no", "--recursive-errors=one", str(unit)).stderr


def test_what_is_exposed_is_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", str(unit))
    assert done.returncode == 0, done.stdout


def test_the_commands_exist(unit: Path) -> None:
    lines = re.findall(r"^Exec\w+=(.*)$", unit.read_text(), re.MULTILINE)
    assert lines
    for program, name, *words in map(shlex.split, lines):
        assert program == SWAPPER
        swapper.cli.cli.commands[name].make_context(name, words)
