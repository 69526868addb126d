"""A lock says who holds it since when, and dies with its holder."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from swapper.errors import LockedError, MissingError
from swapper.lock import file_lock, service_lock, table_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from swapper.lock import service_lock
with service_lock(Path(sys.argv[1]), "game", "swapper swap game"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_holder(run_dir: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(run_dir)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_held_lock_names_its_holder_at_once(tmp_path: Path) -> None:
    with another_holder(tmp_path) as process:
        with pytest.raises(LockedError) as caught, service_lock(tmp_path, "game", "swapper apply"):
            pass
        since = r"\d{4}-\d\d-\d\dT[0-9:]+[+-]\d\d:\d\d, \d+ s ago"
        assert caught.match(rf"process {process.pid} \(swapper swap game\) since {since}")
        assert (tmp_path / "game.lock").read_text().count("\n") == 1


def test_services_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with another_holder(tmp_path), service_lock(tmp_path, "chat", "swapper apply"):
        pass


def test_killing_the_holder_frees_the_lock(tmp_path: Path) -> None:
    with another_holder(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / "game.lock").read_text() != ""
        with service_lock(tmp_path, "game", "swapper apply"):
            assert f'"pid": {os.getpid()}' in (tmp_path / "game.lock").read_text()


@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "a zombie"])
def test_what_a_dead_holder_wrote_is_said_of_what_it_left_running(tmp_path: Path, *, reaped: bool) -> None:
    with another_holder(tmp_path) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        dead = (tmp_path / "game.lock").read_bytes()
        with service_lock(tmp_path, "game", "swapper apply"):
            (tmp_path / "game.lock").write_bytes(dead)
            with (
                pytest.raises(LockedError, match=rf"left running by process {process.pid} .*, which was killed"),
                service_lock(tmp_path, "game", "x"),
            ):
                pass


def test_a_lock_that_was_let_go_of_can_be_taken_again(tmp_path: Path) -> None:
    for _ in range(2):
        with service_lock(tmp_path, "game", "swapper apply"), table_lock(tmp_path):
            pass
        assert (tmp_path / "game.lock").read_text() == ""


def test_a_wait_ends_with_the_holder_named(tmp_path: Path) -> None:
    with (
        another_holder(tmp_path) as process,
        pytest.raises(LockedError, match=rf"process {process.pid} .*waited 0 s"),
        file_lock(tmp_path / "game.lock", wait_s=0.05),
    ):
        pass


def test_a_folder_that_cannot_be_made_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with (
        pytest.raises(MissingError, match=r"cannot be made: .*run as root: sudo "),
        service_lock(tmp_path / "run", "game", "swapper apply"),
    ):
        pass
