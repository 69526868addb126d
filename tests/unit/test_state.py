"""`mapped.txt` is replaced whole, and refused and kept when it cannot be trusted."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from swapper.errors import StateError
from swapper.model import PortSet
from swapper.state import Mapped, StateFile

if TYPE_CHECKING:
    from pathlib import Path

BLUE = Mapped(PortSet.BLUE, 1)
GREEN = Mapped(PortSet.GREEN, 2)


def test_without_a_file_nothing_is_mapped(tmp_path: Path) -> None:
    assert StateFile(tmp_path / "none").read() == {}


def test_what_is_written_is_read_back_and_readable_by_everyone(tmp_path: Path) -> None:
    state = StateFile(tmp_path / "made" / "here")
    state.write("game", BLUE)
    state.write("chat", GREEN)
    assert state.read() == {"chat": GREEN, "game": BLUE}
    assert state.path.read_text() == "chat green 2\ngame blue 1\n"
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o644


def test_the_last_service_to_leave_takes_the_file_with_it(tmp_path: Path) -> None:
    state = StateFile(tmp_path)
    state.write("game", BLUE)
    state.write("game", None)
    assert not state.path.exists()
    assert state.read() == {}


def test_a_killed_writer_leaves_nothing_that_stays(tmp_path: Path) -> None:
    (tmp_path / ".mapped.txt.new").write_text("half a li")
    StateFile(tmp_path).write("game", BLUE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mapped.lock", "mapped.txt"]


def test_a_file_may_say_that_it_is_of_this_version(tmp_path: Path) -> None:
    (tmp_path / "mapped.txt").write_text("# version 1\ngame blue 1\n")
    assert StateFile(tmp_path).read() == {"game": BLUE}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "line 1: found an empty file"),
        (b"\n", "line 1: found no service"),
        (b"game blue 1\nchat gre", "line 2: found a half-written line 'chat gre'"),
        (b"game blue 1", "line 1: found a half-written line"),
        (b"game blue\n", "line 1: found 'game blue', which is not NAME SET GENERATION"),
        (b"game  blue 1\n", "line 1: found 'game  blue 1', which is not NAME SET GENERATION"),
        (b"Game blue 1\n", "line 1: found 'Game blue 1', which is not NAME SET GENERATION"),
        (b"game blue 1\n\nchat blue 1\n", "line 2: found '', which is not NAME SET GENERATION"),
        (b"# a note\ngame blue 1\n", "line 1: found '# a note', which is not NAME SET GENERATION"),
        (b"game blue 1\ngame green 2\n", "line 2: found service game a second time"),
        (b"game red 1\n", "line 1: found set 'red', which is neither blue nor green"),
        (b"game blue -1\n", "line 1: found generation '-1'"),
        (b"game blue 1.5\n", "line 1: found generation '1.5'"),
        (b"game blue " + b"9" * 5000 + b"\n", "line 1: found generation '999"),
        (b"game blue 1\n\xff\n", "line 2: found bytes that are not UTF-8"),
        (b"# version 2\ngame blue 1 zone\n", "line 1: found version 2, written by a later Swapper"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_and_kept(tmp_path: Path, content: bytes, found: str) -> None:
    state = StateFile(tmp_path)
    state.path.write_bytes(content)
    with pytest.raises(StateError) as caught:
        state.read()
    with pytest.raises(StateError):
        state.write("game", BLUE)
    assert f"{state.path}, {found}" in str(caught.value)
    assert f"mv {state.path} {state.path}.bad) and run `swapper apply`" in str(caught.value)
    assert state.path.read_bytes() == content


def test_writers_at_the_same_time_lose_no_line(tmp_path: Path) -> None:
    def write(index: int) -> None:
        StateFile(tmp_path).write(f"s{index}", Mapped(PortSet.GREEN, index))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert StateFile(tmp_path).read() == {f"s{i}": Mapped(PortSet.GREEN, i) for i in range(40)}


def test_a_generation_below_zero_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="generation -1"):
        Mapped(PortSet.BLUE, -1)
