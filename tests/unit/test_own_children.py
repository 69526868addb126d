"""What a command says of a backend that it has started itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from swapper.model import DataplaneName, Engine, PortSet
from swapper.processes import Processes
from swapper.provision import Launch
from tests import support

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("script", "ended"), [("exit 7", "ended with exit code 7"), ("kill -9 $$", "killed by SIGKILL")]
)
def test_how_it_ended_is_said_however_often_it_is_asked(tmp_path: Path, script: str, ended: str) -> None:
    service = support.game(DataplaneName.ZONES, Engine.NFTABLES)
    processes = Processes(service, tmp_path, say=print)
    command = ("/bin/sh", "-c", script)
    started = processes.launch(Launch(service, PortSet.BLUE, "v1", "", tmp_path, command, {}, ()))
    os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOWAIT)
    assert [processes.death(started) for _ in range(3)] == [ended] * 3
