"""A secret comes from its place or not at all, and no message holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from swapper import secrets
from swapper.errors import ConfigError
from swapper.recipe import Secret

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "SWAPPER_TEST_SECRET"


def kept(folder: Path, content: bytes, mode: int = 0o600) -> Secret:
    path = folder / "it's here"
    path.write_bytes(content)
    path.chmod(mode)
    return Secret(file=path)


@pytest.mark.parametrize("content", [b"hunter2", b"hunter2\n", b"hunter2\r\n"])
def test_a_file_holds_the_secret_with_or_without_a_newline(tmp_path: Path, content: bytes) -> None:
    assert secrets.read(kept(tmp_path, content)) == "hunter2"


def test_the_owner_and_the_group_may_read_the_file(tmp_path: Path) -> None:
    assert secrets.read(kept(tmp_path, b"hunter2", 0o640)) == "hunter2"


def test_the_environment_holds_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "pässword 2\n")
    assert secrets.read(Secret(env=VARIABLE)) == "pässword 2"


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601])
def test_a_file_that_everyone_may_use_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match=r"run: chmod o= '.*/it'\"'\"'s here'$"):
        secrets.read(kept(tmp_path, b"hunter2", mode))


def test_the_place_that_lacks_the_secret_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=rf"^\${VARIABLE}: no secret is there$"):
        secrets.read(Secret(env=VARIABLE))
    with pytest.raises(ConfigError, match=r"none: the secret cannot be read: No such file or directory$"):
        secrets.read(Secret(file=tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"here: no secret is there$"):
        secrets.read(kept(tmp_path, b"\n"))


@pytest.mark.parametrize("content", [b"hunter2\nhunter3", b"hunter2 ", b"hunter2\x00", b"hunter2\xff"])
def test_what_a_header_cannot_carry_is_refused_without_being_shown(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        secrets.read(kept(tmp_path, content))
    assert "hunter" not in str(caught.value)
    assert caught.value.__cause__ is None
