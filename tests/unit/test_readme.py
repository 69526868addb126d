"""README says what is there: its commands parse, its configuration is valid, its tests exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

import bench.cli
import harness.cli
import swapper.cli
from swapper import config

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PROGRAMS: dict[str, click.Group] = {
    "swapper": swapper.cli.cli,
    "swapper-harness": harness.cli.cli,
    "swapper-bench": bench.cli.cli,
}
SHOWN = re.findall(r"^    ((?:swapper|swapper-harness|swapper-bench) .*?)(?:  .*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_that_is_shown_parses(line: str) -> None:
    program, name, *words = shlex.split(line.replace("[", "").replace("]", ""), comments=True)
    command = PROGRAMS[program].commands[name]
    command.make_context(name, words)


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", README, re.DOTALL))
def test_every_configuration_that_is_shown_is_valid(text: str) -> None:
    assert set(config.parse(tomllib.loads(text), Path("swapper.toml")).services) == {"game"}


def test_every_test_that_is_named_exists() -> None:
    folder, named = ROOT, re.findall(r"`((?:tests/\w+/)?test_\w+\.py)`", README)
    assert len(named) > 15
    for path in named:
        folder = (ROOT / path).parent if "/" in path else folder
        assert (folder / Path(path).name).exists(), path
