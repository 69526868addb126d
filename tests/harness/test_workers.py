"""A worker that does not come to its end says why, and none outlives what it is a fork of."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.forks import Forks, forks
from harness.workers import Worker, WorkerError
from tests.loads import backend_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.netns import Net

pytestmark = pytest.mark.harness


@pytest.fixture
def own_forks() -> Iterator[None]:
    """What workers are forks of, made for the test alone."""
    forks.cache_clear()
    yield
    forks().close()
    forks.cache_clear()


def test_it_lives_in_the_namespace_that_it_was_started_in(netns_topology: Net, netns_logs: Path) -> None:
    with netns_topology["host"].spawn("backend", backend_spec(netns_logs)) as worker:
        lives_in = Path(f"/proc/{worker.pid}/ns/net").stat().st_ino
        assert lives_in == os.fstat(netns_topology["host"].fd).st_ino
    with netns_topology["outside"].entered():
        worker = Worker.start("backend", backend_spec(netns_logs), where="outside")
    with worker.await_ready():
        lives_in = Path(f"/proc/{worker.pid}/ns/net").stat().st_ino
        assert lives_in == os.fstat(netns_topology["outside"].fd).st_ino


def test_what_it_has_used_is_counted(netns_logs: Path) -> None:
    before_s = Forks.user_s
    # The kernel tells user time from its own by the tick (4 ms at 250 Hz): of a quarter of such short workers, none.
    for _ in range(20):
        with Worker.start("backend", backend_spec(netns_logs), where="nowhere").await_ready() as worker:
            worker.stop()
    assert 0 < Forks.user_s - before_s < 5


def test_one_that_dies_is_quoted() -> None:
    with (
        Worker.start("backend", {}, where="nowhere") as worker,
        pytest.raises(WorkerError, match=r"(?s)backend in nowhere died with 1: .*KeyError"),
    ):
        worker.await_ready()


def test_one_that_is_killed_says_by_which_signal(netns_logs: Path) -> None:
    with Worker.start("backend", backend_spec(netns_logs), where="nowhere").await_ready() as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="backend in nowhere died with -9: no message"):
            worker.read(timeout_s=10)


def test_one_that_says_nothing_is_not_waited_for(netns_logs: Path) -> None:
    with Worker.start("backend", backend_spec(netns_logs), where="nowhere").await_ready() as worker:
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(WorkerError, match=r"backend in nowhere said nothing for 0\.1 s"):
            worker.stop(timeout_s=0.1)


@pytest.mark.usefixtures("own_forks")
def test_none_outlives_what_it_is_a_fork_of(netns_logs: Path) -> None:
    with Worker.start("backend", backend_spec(netns_logs), where="nowhere").await_ready() as worker:
        status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
        parent = int(status.partition("PPid:")[2].split()[0])
        ended = os.pidfd_open(worker.pid)
        try:
            os.kill(parent, signal.SIGKILL)
            assert select.select([ended], [], [], 10)[0]
        finally:
            os.close(ended)
        with pytest.raises(WorkerError, match="no backend could be started in nowhere"):
            Worker.start("backend", {}, where="nowhere")
        for _ in range(2):
            with pytest.raises(WorkerError, match="backend in nowhere died with -9"):
                worker.read(timeout_s=1)
    with Worker.start("backend", backend_spec(netns_logs), where="nowhere").await_ready() as worker:
        worker.stop()


@pytest.mark.usefixtures("own_forks")
def test_an_order_that_cannot_be_carried_out_leaves_the_others_alone(netns_logs: Path) -> None:
    with Worker.start("backend", backend_spec(netns_logs), where="nowhere").await_ready() as worker:
        with pytest.raises(OSError, match="No child processes"):
            forks()._ordered({"reap": os.getpid()}, ())
        worker.stop()


@pytest.mark.usefixtures("own_forks")
def test_an_order_that_is_interrupted_gives_its_answer_to_nobody_else(
    netns_logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = forks()
    with Worker.start("backend", backend_spec(netns_logs), where="nowhere").await_ready() as worker:

        def interrupt(*arguments: Any) -> None:
            send(*arguments)
            raise KeyboardInterrupt

        send = socket.send_fds
        monkeypatch.setattr(socket, "send_fds", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Worker.start("backend", backend_spec(netns_logs), where="nowhere")
        monkeypatch.setattr(socket, "send_fds", send)
        assert forks() is not interrupted
        with pytest.raises(WorkerError, match="died with -9"):
            worker.read(timeout_s=10)
