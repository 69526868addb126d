"""A proxy as a process, in the namespace of the caller: what it may open, and that none is left behind."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Any, cast

import pytest

from bench.proxies.running import FILES, ProxyError, Running, until
from swapper.procfs import started_ticks

if TYPE_CHECKING:
    from pathlib import Path

    from harness.netns import Namespace


class Here:
    """What `Running` needs of a namespace, without root."""

    def popen(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(argv, **options)


class Asleep(Running):
    """A proxy that listens nowhere, and its worker."""

    def __init__(self, folder: Path, script: str) -> None:
        super().__init__("asleep", cast("Namespace", Here()), folder, ["sh", "-c", script])

    def switch(self, port: int) -> None:
        raise ProxyError(f"nothing listens on {port}")


def test_it_may_have_as_many_files_open_as_flows(tmp_path: Path) -> None:
    running = Asleep(tmp_path, "ulimit -n")
    running.process.wait(timeout=10)
    most = int(subprocess.run(["sh", "-c", "ulimit -Hn"], capture_output=True, text=True, check=True).stdout)
    assert int(running.last_lines()) == min(FILES, most)


def test_one_that_does_not_come_up_is_ended_with_its_workers(tmp_path: Path) -> None:
    running = Asleep(tmp_path, "sleep 60 & echo $!; sleep 60")
    with pytest.raises(ProxyError, match=r"asleep does not listen on udp 9: [0-9]+$") as caught:
        running.await_port("udp", 9, within_s=0.5)
    worker = int(str(caught.value).rpartition(" ")[2])
    assert running.process.returncode == -signal.SIGKILL
    assert until(lambda: started_ticks(worker) is None)


def test_the_number_of_one_that_has_ended_is_not_taken_for_it(tmp_path: Path) -> None:
    running = Asleep(tmp_path, "exit 3")
    with pytest.raises(ProxyError, match="asleep ended with 3: it said nothing"):
        running.await_port("udp", 9)
    assert running.pids() == []
