"""The webhook server as operators run it: a process of its own, real sockets, real signals."""

from __future__ import annotations

import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from swapper.webhook import CONNECTIONS
from tests import github_events as github
from tests.support import MEASURED

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVE = """
import sys
from pathlib import Path
from swapper import config, webhook
_, path, swapper, port, *request_s = sys.argv
limits = {"request_s": int(text) for text in request_s}
webhook.serve(config.load(Path(path)), command=[sys.executable, "-c", swapper, port], **limits)
"""
# A `swapper` whose deployments tell the test what they do, end as it says, and do not outlive it.
SWAPPER = """
import os, socket, sys
_, port, command, *arguments = sys.argv
if command == "status":
    print('{"services": [{"name": "game"}]}')
else:
    with socket.create_connection(("127.0.0.1", int(port))) as test:
        test.sendall(" ".join([command, *arguments]).encode() + b"\\n")
        exit_code = int(test.recv(16) or b"1")
        test.sendall(b"ended")
    if exit_code < 0:
        os.kill(os.getpid(), -exit_code)
    sys.exit(exit_code)
"""
CONFIGURATION = """
state_dir = "{folder}/state"
[serve]
listen = "{listen}"
secret_file = "{folder}/secret"
[services.game]
ports = [{{ protocol = "udp", public = 1000, blue = 1001, green = 1002 }}]
backend = {{ kind = "process", command = ["game"] }}
release = {{ source = "local", path = "/srv/{{tag}}" }}
webhook = {{ repositories = ["owner/game"] }}
"""
GIB = 1 << 30
PATIENCE_S = 30.0
MEMORY_KIB = 8192  # that a server may grow by; a leak of a body each would be more


@dataclass
class Deployment:
    """A `swapper deploy`, or an `apply` after it, under way."""

    connection: socket.socket
    arguments: str

    def end(self, exit_code: int = 0) -> None:
        """Let it end; by a signal where the number is negative. That it answers shows that it was still alive."""
        self.connection.sendall(str(exit_code).encode())
        assert self.connection.recv(16) == b"ended"


class Deployments:
    """Where the deployments announce themselves."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.port = self._listener.getsockname()[1]
        self._under_way: list[Deployment] = []

    def next(self) -> Deployment:
        """The next one that is under way."""
        connection, _ = self._listener.accept()
        connection.settimeout(PATIENCE_S)
        with connection.makefile("r") as lines:
            deployment = Deployment(connection, lines.readline().rstrip())
        self._under_way.append(deployment)
        return deployment

    def close(self) -> None:
        self._listener.close()
        for deployment in self._under_way:
            deployment.connection.close()


class Server:
    """A server that listens."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False)

    def deliver(self, tag: str, delivery: str = "") -> Any:
        """The answer's document."""
        body = github.release(tag)
        return self.client.post("/hook", content=body, headers=github.headers(body, delivery=delivery)).json()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def command(folder: Path, deployments: Deployments, *, listen: str = "127.0.0.1:0") -> list[str]:
    path, secret = folder / "swapper.toml", folder / "secret"
    path.write_text(CONFIGURATION.format(folder=folder, listen=listen))
    secret.write_text(github.SECRET)
    secret.chmod(0o600)
    return [sys.executable, "-c", SERVE, str(path), SWAPPER, str(deployments.port)]


@contextmanager
def serving(folder: Path, deployments: Deployments, *limits: str) -> Iterator[Server]:
    with subprocess.Popen([*command(folder, deployments), *limits], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert '"listening"' in line, line + process.stderr.read()
            server = Server(process, json.loads(line)["port"])
            with server.client:
                yield server
        finally:
            process.kill()


@pytest.fixture
def deployments() -> Iterator[Deployments]:
    deployments = Deployments()
    yield deployments
    deployments.close()


@pytest.fixture
def server(tmp_path: Path, deployments: Deployments) -> Iterator[Server]:
    with serving(tmp_path, deployments) as server:
        yield server


def test_a_release_runs_swapper_deploy(server: Server, deployments: Deployments, tmp_path: Path) -> None:
    assert server.deliver("v1") == {"queued": ["game"]}
    deployment = deployments.next()
    assert deployment.arguments == f"deploy --config {tmp_path}/swapper.toml --json -- game v1"
    document = server.client.get("/status").json()
    assert document["running"]["game"]["tag"] == "v1"
    assert document["status"] == {"services": [{"name": "game"}]}


def test_a_newer_release_replaces_the_waiting_one(server: Server, deployments: Deployments) -> None:
    server.deliver("v1")
    first = deployments.next()
    server.deliver("v2")
    server.deliver("v3")
    first.end()
    second = deployments.next()
    second.end(3)
    server.deliver("v4")
    third = deployments.next()
    assert [one.arguments.split()[-1] for one in (first, second, third)] == ["v1", "v3", "v4"]
    assert server.client.get("/status").json()["last"]["game"]["result"] == "unhealthy"


@pytest.mark.alone
def test_deliveries_are_answered_within_100_ms(server: Server) -> None:
    took_s = []
    for number in range(20):
        begin = time.monotonic()
        server.deliver(f"v{number}")
        took_s.append(time.monotonic() - begin)
    MEASURED.info("answered after %.1f ms (median)", 1e3 * statistics.median(took_s))
    assert statistics.median(took_s) < 0.1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_the_server_what_runs_goes_on_and_what_waits_is_taken_up(
    tmp_path: Path, deployments: Deployments, number: signal.Signals
) -> None:
    with serving(tmp_path, deployments) as server:
        server.deliver("v1", "one")
        running = deployments.next()
        server.deliver("v2", "two")
        assert server.stop(number) == (-number if number is signal.SIGKILL else 0)
    with serving(tmp_path, deployments) as server:
        waited = deployments.next()
        assert waited.arguments.endswith("game v2")
        assert server.deliver("v2", "two") == {"result": "replay"}
        waited.end()
        running.end()
        assert server.client.get("/status").json()["waiting"] == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_deployment_that_died_with_its_server_is_begun_again(
    tmp_path: Path, deployments: Deployments, number: signal.Signals
) -> None:
    """As in a reboot."""
    with serving(tmp_path, deployments) as server:
        server.deliver("v1", "one")
        begun = deployments.next()
        server.stop(number)
        begun.end(-signal.SIGKILL)
    with serving(tmp_path, deployments) as server:
        again = deployments.next()
        assert again.arguments.endswith("game v1")
        again.end()
        assert server.deliver("v1", "one") == {"result": "replay"}


@pytest.mark.parametrize("exit_code", [-signal.SIGKILL, 128 + signal.SIGTERM])
def test_what_a_killed_deployment_left_is_settled_once_and_a_redelivery_deploys_it(
    server: Server, deployments: Deployments, tmp_path: Path, exit_code: int
) -> None:
    server.deliver("v1", "one")
    deployments.next().end(exit_code)
    settling = deployments.next()
    assert settling.arguments == f"apply --config {tmp_path}/swapper.toml --json -- game"
    server.deliver("v2", "two")
    assert server.client.get("/status").json()["running"]["game"]["tag"] == "v1"
    settling.end(1)
    assert deployments.next().arguments.endswith("game v2")
    assert server.deliver("v1", "one") == {"queued": ["game"]}
    assert server.deliver("v2", "two") == {"result": "replay"}


def test_a_stop_is_logged_with_what_it_leaves(server: Server, deployments: Deployments) -> None:
    server.deliver("v1")
    running = deployments.next()
    server.deliver("v2")
    server.stop()
    running.end()
    assert server.process.stderr is not None
    lines = [json.loads(line) for line in server.process.stderr]
    stopped = [line for line in lines if line["event"] == "stopped"]
    assert [(line["waiting"], line["left_running"]) for line in stopped] == [({"game": "v2"}, {"game": "v1"})]


@pytest.mark.parametrize("length", [f"Content-Length: {GIB}", "Transfer-Encoding: chunked"])
def test_a_body_of_1_gib_is_refused_early(server: Server, length: str) -> None:
    chunk = bytes(65536)
    framed = chunk if "Content" in length else b"10000\r\n%s\r\n" % chunk
    before_kib = server.memory_kib()
    sent = 0
    with server.connect() as connection:
        connection.sendall(f"POST /hook HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
        try:
            while sent < GIB:
                connection.sendall(framed)
                sent += len(chunk)
        except OSError:  # the server has closed the connection
            pass
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
    assert sent < GIB / 64
    assert server.memory_kib() - before_kib < MEMORY_KIB


def test_a_body_that_is_declared_too_long_is_refused_before_any_of_it_was_sent(server: Server) -> None:
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(f"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: {GIB}\r\n\r\n".encode())
        assert answer.read().startswith(b"HTTP/1.1 413 ")  # to its end: the connection is closed


@pytest.mark.alone
def test_slow_clients_are_let_go_of_after_their_time_and_delay_nobody(tmp_path: Path, deployments: Deployments) -> None:
    limit_s = 1
    with serving(tmp_path, deployments, str(limit_s)) as server:
        heads = [
            b"",
            b"POST /hook HTTP/1.1\r\nHost:",
            b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nslow",
        ]
        begin = time.monotonic()
        connections = [server.connect() for _ in range(30) for _ in heads]
        for connection, head in zip(connections, heads * 30, strict=True):
            connection.sendall(head)
        assert server.deliver("v1") == {"queued": ["game"]}
        assert time.monotonic() - begin < limit_s
        for connection, head in zip(connections, heads * 30, strict=True):
            with connection, connection.makefile("rb") as answer:
                assert answer.read().partition(b"\r\n")[0] == (
                    b"HTTP/1.1 408 Request Timeout" if head == heads[2] else b""
                )
        assert 0.9 * limit_s < time.monotonic() - begin < 2 * limit_s + 5


def test_a_connection_too_many_is_closed_at_once(server: Server) -> None:
    with ExitStack() as idle:
        for _ in range(CONNECTIONS):
            idle.enter_context(server.connect())
        with server.connect() as connection:
            assert connection.recv(1) == b""


@pytest.mark.alone
def test_a_flood_of_bad_signatures_neither_delays_a_good_one_nor_fills_the_memory(server: Server) -> None:
    rate, seconds, threads = 1000, 2, 8
    _flood(server, range(500), begin_s=time.monotonic(), rate=rate)  # what is made once is made before memory counts
    before_kib = server.memory_kib()
    begin_s = time.monotonic()
    took_s = []
    with ThreadPoolExecutor(threads) as pool:
        floods = [
            pool.submit(_flood, server, range(number, rate * seconds, threads), begin_s=begin_s, rate=rate)
            for number in range(threads)
        ]
        while not all(flood.done() for flood in floods):
            sent_s = time.monotonic()
            assert server.deliver("v1") == {"queued": ["game"]}
            took_s.append(time.monotonic() - sent_s)
            time.sleep(0.05)  # so that the flood is the load, not the good ones
        assert sum(flood.result() for flood in floods) == rate * seconds
    reached = rate * seconds / (time.monotonic() - begin_s)
    grown_kib = server.memory_kib() - before_kib
    MEASURED.info(
        "%.0f bad/s: %d good answered within %.1f ms, grown by %d KiB",
        reached,
        len(took_s),
        1e3 * max(took_s),
        grown_kib,
    )
    assert max(took_s) < 1
    assert grown_kib < MEMORY_KIB


def _flood(server: Server, slots: range, *, begin_s: float, rate: int) -> int:
    """Send a badly signed delivery in each slot, on a connection of its own; how many were refused."""
    body = github.release()
    head = (
        f"POST /hook HTTP/1.1\r\nX-Hub-Signature-256: sha256={'0' * 64}\r\nContent-Length: {len(body)}\r\nHost: x\r\n"
    )
    refused = 0
    for slot in slots:
        time.sleep(max(0.0, begin_s + slot / rate - time.monotonic()))
        with server.connect() as connection:
            connection.sendall(head.encode() + b"\r\n" + body)
            refused += connection.recv(4096).startswith(b"HTTP/1.1 401 ")
    return refused


def test_a_client_that_goes_away_is_no_fault_of_the_server(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /hook HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    with server.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert answer.read().startswith(b"HTTP/1.1 400 ")
    assert server.stop() == 0
    assert server.process.stderr is not None
    assert {json.loads(line)["event"] for line in server.process.stderr} <= {"refused", "stopped"}


def test_a_port_that_is_taken_is_named(tmp_path: Path, deployments: Deployments) -> None:
    argv = command(tmp_path, deployments, listen=f"127.0.0.1:{deployments.port}")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert f"ConfigError: {tmp_path}/swapper.toml: serve.listen: cannot listen on 127.0.0.1, port" in done.stderr
