"""Probes, against real sockets and real commands: they say what is wrong, never raise and never outstay their time."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from swapper.model import Protocol
from swapper.probes import Endpoint, Probe, probe_for
from swapper.recipe import Health, ProbeKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

UDP, TCP = Protocol.UDP, Protocol.TCP
QUICK_S = 0.2
SLACK_S = 0.5  # on a busy machine


def probing(health: Health, endpoint: Endpoint | None = None, **environment: str) -> Probe:
    endpoint = endpoint or Endpoint(TCP, "127.0.0.1", 9)
    return probe_for(health, endpoint, listening=lambda: "listening", engine=lambda: "engine", environment=environment)


@contextmanager
def udp_server(*answers: bytes, address: str = "127.0.0.1") -> Iterator[Endpoint]:
    """Answers every datagram with all of `answers`."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 0))

        def serve() -> None:
            while (received := server.recvfrom(2048))[0] != b"end":
                for answer in answers:
                    server.sendto(answer, received[1])

        thread = threading.Thread(target=serve)
        thread.start()
        yield Endpoint(UDP, address, server.getsockname()[1])
        server.sendto(b"end", server.getsockname())
        thread.join()


@contextmanager
def tcp_server(talk: Callable[[socket.socket, threading.Event], None]) -> Iterator[Endpoint]:
    """Lets `talk` serve each connection until it returns; the event says that the test is over."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                connection = server.accept()[0]
                with connection:
                    if over.is_set():
                        return
                    try:
                        talk(connection, over)
                    except OSError:
                        continue  # the probe went away, as probes do

        thread = threading.Thread(target=serve)
        thread.start()
        endpoint = Endpoint(TCP, *server.getsockname())
        yield endpoint
        over.set()
        socket.create_connection((endpoint.address, endpoint.port)).close()
        thread.join()


def saying(*parts: bytes) -> Callable[[socket.socket, threading.Event], None]:
    def talk(connection: socket.socket, _over: threading.Event) -> None:
        connection.recv(2048)
        for part in parts:
            connection.sendall(part)

    return talk


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Takes the connection and never says a word."""
    connection.setblocking(False)
    over.wait()


def dripping(connection: socket.socket, over: threading.Event) -> None:
    """Sends a byte of a header each 20 ms, for ever."""
    while not over.wait(0.02):
        connection.sendall(b"x")


def http(status: str, body: bytes = b"", headers: bytes = b"") -> Callable[[socket.socket, threading.Event], None]:
    return saying(b"HTTP/1.1 " + status.encode() + b"\r\n" + headers + b"\r\n" + body)


def bounded(probe: Probe, timeout_s: float = QUICK_S) -> str:
    """What the probe says, and that it took its time and no more."""
    start_s = time.monotonic()
    reason = probe()
    took_s = time.monotonic() - start_s
    assert took_s > timeout_s - 0.01
    assert took_s < timeout_s + SLACK_S
    return reason


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.mark.parametrize("kind", [ProbeKind.LISTEN, ProbeKind.DOCKER])
def test_sockets_and_the_engine_are_asked_by_those_who_know_them(kind: ProbeKind) -> None:
    assert probing(Health(kind))() == {ProbeKind.LISTEN: "listening", ProbeKind.DOCKER: "engine"}[kind]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_any_answer_of_a_udp_backend_will_do_unless_one_is_expected(address: str) -> None:
    with udp_server(b"pong 7", address=address) as endpoint:
        assert probing(Health(ProbeKind.UDP, send=b"ping"), endpoint)() == ""
        assert probing(Health(ProbeKind.UDP, send=b"ping", expect=b"pong 7"), endpoint)() == ""
        assert probing(Health(ProbeKind.UDP, send=b"ping", pattern=r"pong \d"), endpoint)() == ""


def test_a_wrong_udp_answer_is_shown() -> None:
    with udp_server(b"\x00busy") as endpoint:
        expecting = Health(ProbeKind.UDP, send=b"ping", expect=b"pong", timeout_s=QUICK_S)
        assert bounded(probing(expecting, endpoint)) == r"answered b'\x00busy' instead of b'pong'"
        seeking = Health(ProbeKind.UDP, send=b"ping", pattern="pong", timeout_s=QUICK_S)
        assert bounded(probing(seeking, endpoint)) == r"answered b'\x00busy', where 'pong' is not found"


def test_a_push_before_the_answer_does_not_matter() -> None:
    with udp_server(b"tick", b"tick", b"pong") as endpoint:
        assert probing(Health(ProbeKind.UDP, send=b"ping", expect=b"pong"), endpoint)() == ""


def test_an_empty_datagram_is_an_answer() -> None:
    with udp_server(b"") as endpoint:
        assert probing(Health(ProbeKind.UDP, send=b"ping"), endpoint)() == ""


def test_a_udp_backend_that_has_not_booted_is_told_from_one_that_is_not_there() -> None:
    health = Health(ProbeKind.UDP, send=b"ping", timeout_s=QUICK_S)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as booting:
        booting.bind(("127.0.0.1", 0))
        port = booting.getsockname()[1]
        assert (
            bounded(probing(health, Endpoint(UDP, "127.0.0.1", port)))
            == f"no answer from 127.0.0.1:{port} within 0.2 s"
        )
    assert probing(health, Endpoint(UDP, "127.0.0.1", port))() == f"nothing listens on 127.0.0.1:{port}"


def test_a_tcp_connection_is_enough_where_nothing_is_sent_or_expected() -> None:
    with tcp_server(silent) as endpoint:
        assert probing(Health(ProbeKind.TCP), endpoint)() == ""
    port = free_port(socket.SOCK_STREAM)
    assert probing(Health(ProbeKind.TCP), Endpoint(TCP, "::1", port))() == f"nothing listens on [::1]:{port}"


def test_a_tcp_answer_may_come_in_parts() -> None:
    with tcp_server(saying(b"PO", b"NG\r\n")) as endpoint:
        assert probing(Health(ProbeKind.TCP, send=b"PING\r\n", expect=b"PONG\r\n"), endpoint)() == ""
        assert probing(Health(ProbeKind.TCP, send=b"PING\r\n", pattern="ONG"), endpoint)() == ""
        assert probing(Health(ProbeKind.TCP, send=b"PING\r\n"), endpoint)() == ""
        wrong = probing(Health(ProbeKind.TCP, send=b"PING\r\n", expect=b"+OK"), endpoint)()
        assert wrong == r"answered b'PONG\r\n' instead of b'+OK'"


def test_a_tcp_backend_that_hangs_up_or_is_silent_is_not_healthy() -> None:
    health = Health(ProbeKind.TCP, send=b"PING", timeout_s=QUICK_S)
    with tcp_server(saying()) as endpoint:
        assert probing(health, endpoint)() == f"{endpoint} closed the connection without an answer"
    with tcp_server(silent) as endpoint:
        assert bounded(probing(health, endpoint)) == f"no answer from {endpoint} within 0.2 s"


def test_a_tcp_stream_that_never_says_the_right_thing_ends_with_the_timeout() -> None:
    with tcp_server(dripping) as endpoint:
        health = Health(ProbeKind.TCP, expect=b"PONG", timeout_s=QUICK_S)
        assert bounded(probing(health, endpoint)).startswith("answered b'x")


def test_http_is_judged_by_its_status_and_by_its_body_where_one_is_expected() -> None:
    with tcp_server(http("200 OK", b'{"ready": true}')) as endpoint:
        assert probing(Health(ProbeKind.HTTP), endpoint)() == ""
        assert probing(Health(ProbeKind.HTTP, pattern='"ready": true'), endpoint)() == ""
        assert probing(Health(ProbeKind.HTTP, expect=b'{"ready": true}'), endpoint)() == ""
        wrong = probing(Health(ProbeKind.HTTP, expect=b"ok"), endpoint)()
        assert wrong == """answered b'{"ready": true}' instead of b'ok'"""
    with tcp_server(http("503 Service Unavailable")) as endpoint:
        wrong = probing(Health(ProbeKind.HTTP, path="/healthz"), endpoint)()
        assert wrong == f"{endpoint}/healthz answered 503 instead of 200"
        assert probing(Health(ProbeKind.HTTP, status=503), endpoint)() == ""


def test_the_path_that_is_asked_for_is_the_one_of_the_configuration() -> None:
    asked: list[bytes] = []

    def record(connection: socket.socket, _over: threading.Event) -> None:
        asked.append(connection.recv(2048))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with tcp_server(record) as endpoint:
        assert probing(Health(ProbeKind.HTTP, path="/a?b=%20é\r\nX: 1", status=204), endpoint)() == ""
    assert asked[0].startswith(b"GET /a?b=%20%C3%A9%0D%0AX:%201 HTTP/1.1\r\nHost: " + str(endpoint).encode())


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b""])
def test_http_that_drips_ends_with_the_timeout(head: bytes) -> None:
    def drip(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(head)
        dripping(connection, over)

    with tcp_server(drip) as endpoint:
        wrong = bounded(probing(Health(ProbeKind.HTTP, pattern="ready", timeout_s=0.1), endpoint), 0.1)
        assert wrong == f"no answer from {endpoint} within 0.1 s"


def test_what_is_not_http_is_told_in_words() -> None:
    with tcp_server(saying(b"SSH-2.0-OpenSSH\r\n")) as endpoint:
        assert probing(Health(ProbeKind.HTTP), endpoint)().startswith(f"{endpoint}: SSH-2.0-OpenSSH")
    with tcp_server(saying()) as endpoint:
        assert "closed connection without response" in probing(Health(ProbeKind.HTTP), endpoint)()


def test_an_address_that_cannot_be_reached_is_told_in_words() -> None:
    for kind in (ProbeKind.UDP, ProbeKind.TCP, ProbeKind.HTTP):
        wrong = probing(Health(kind, timeout_s=QUICK_S), Endpoint(TCP, "255.255.255.255", 1))()
        assert wrong.startswith("255.255.255.255:1: ")


def python(code: str, *, timeout_s: float = 20) -> Health:
    return Health(ProbeKind.COMMAND, command=(sys.executable, "-c", code), timeout_s=timeout_s)


def test_a_command_is_healthy_when_it_ends_with_0() -> None:
    path = os.environ["PATH"]
    asks = f"import os; assert (os.environ['SWAPPER_SET'], os.environ['PATH']) == ('green', {path!r})"
    assert probing(python(asks), SWAPPER_SET="green")() == ""


def test_a_command_that_fails_is_quoted() -> None:
    exits = python("print('a\\nb'); raise SystemExit('no players table')")
    assert probing(exits)() == f"{sys.executable} ended with exit code 1: no players table"
    killed = python("import os; os.kill(os.getpid(), 9)")
    assert probing(killed)() == f"{sys.executable} was ended by SIGKILL"
    missing = Health(ProbeKind.COMMAND, command=("/no/such/program",))
    assert probing(missing)() == "/no/such/program cannot be run: No such file or directory"


def test_a_command_has_no_shell() -> None:
    assert probing(Health(ProbeKind.COMMAND, command=("echo ok; true",)))().startswith("echo ok; true cannot be run")


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    # The shell's child holds the fifo open for writing: its reader sees the end only when the child is gone too.
    health = Health(ProbeKind.COMMAND, command=("sh", "-c", f"sleep 600 > {tmp_path}/alive"), timeout_s=QUICK_S)
    fifo = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    assert bounded(probing(health)) == "sh did not end within 0.2 s"
    os.set_blocking(fifo, True)
    assert os.read(fifo, 1) == b""
    os.close(fifo)


def test_what_a_command_leaves_running_does_not_delay_the_answer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "end")
    health = Health(ProbeKind.COMMAND, command=("sh", "-c", f"cat {tmp_path}/end & echo done"), timeout_s=20)
    assert probing(health)() == ""
    (tmp_path / "end").write_text("what was left ends now")
