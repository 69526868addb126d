"""How a backend is asked whether it is ready: over the network, or by a command.

A probe answers once and never raises; what its answers amount to is not decided here.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException
from string import punctuation
from typing import TYPE_CHECKING
from urllib.parse import quote

from swapper.recipe import Health, ProbeKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import WriteableBuffer

    from swapper.model import Protocol

__all__ = ["Endpoint", "Probe", "probe_for"]

Probe = Callable[[], str]  # "" when all is well, else the reason in words; never raises, ends soon after its timeout

ANSWER_BYTES = 65_536
SHOWN_BYTES = 60
SAID_BYTES = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a backend is asked; `address` is an IPv4 or IPv6 address."""

    protocol: Protocol
    address: str
    port: int

    def __str__(self) -> str:
        """The notation of messages: 127.0.0.1:1002, [::1]:1002."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def probe_for(
    health: Health, endpoint: Endpoint, *, listening: Probe, engine: Probe, environment: Mapping[str, str]
) -> Probe:
    """The probe that `health` describes, of the backend at `endpoint`.

    `listening` looks for its sockets, `engine` asks the image's own HEALTHCHECK; a command's environment is this
    process's and `environment`.
    """
    match health.kind:
        case ProbeKind.LISTEN:
            return listening
        case ProbeKind.DOCKER:
            return engine
        case ProbeKind.COMMAND:
            return partial(_run, health, environment)
        case ProbeKind.UDP:
            return partial(_over_network, _ask_udp, health, endpoint)
        case ProbeKind.TCP:
            return partial(_over_network, _ask_tcp, health, endpoint)
        case ProbeKind.HTTP:
            return partial(_over_network, _ask_http, health, endpoint)


class _Connection(socket.socket):
    """A connected socket that ends all waiting `timeout_s` after it was made, however slowly the other side drips."""

    def __init__(self, kind: socket.SocketKind, endpoint: Endpoint, timeout_s: float) -> None:
        super().__init__(socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET, kind)
        self._ends_s = time.monotonic() + timeout_s
        self.settimeout(timeout_s)
        try:
            self.connect((endpoint.address, endpoint.port))
            if self.getsockname() == self.getpeername():
                # Where nothing listens on a port of ip_local_port_range, the kernel may connect it with itself.
                raise ConnectionRefusedError
        except OSError:
            self.close()
            raise

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self.settimeout(left_s)
        return super().recv_into(buffer, nbytes, flags)

    def answer(self) -> bytes:
        """The next datagram, or the next bytes of the stream (b"" at its end)."""
        buffer = bytearray(ANSWER_BYTES)
        return bytes(buffer[: self.recv_into(buffer)])


def _over_network(ask: Callable[[Health, Endpoint], str], health: Health, endpoint: Endpoint) -> str:
    try:
        return ask(health, endpoint)
    except TimeoutError:
        return f"no answer from {endpoint} within {health.timeout_s:g} s"
    except ConnectionRefusedError:
        return f"nothing listens on {endpoint}"
    except (OSError, HTTPException) as error:
        return f"{endpoint}: {str(error) or type(error).__name__}"


def _ask_udp(health: Health, endpoint: Endpoint) -> str:
    wrong = ""
    with _Connection(socket.SOCK_DGRAM, endpoint, health.timeout_s) as connection:
        connection.send(health.send)
        try:
            while wrong := _wrong(health, connection.answer()):
                pass  # it may be a push; the answer can still come
        except TimeoutError:
            if not wrong:
                raise
    return wrong


def _ask_tcp(health: Health, endpoint: Endpoint) -> str:
    answer, wrong = b"", ""
    with _Connection(socket.SOCK_STREAM, endpoint, health.timeout_s) as connection:
        connection.sendall(health.send)
        if not (health.send or health.pattern) and health.expect is None:
            return ""
        try:
            while len(answer) < ANSWER_BYTES and (more := connection.answer()):
                answer += more
                if not (wrong := _wrong(health, answer)):
                    return ""
        except TimeoutError:
            if not wrong:
                raise
    return wrong or f"{endpoint} closed the connection without an answer"


def _ask_http(health: Health, endpoint: Endpoint) -> str:
    with (
        _Connection(socket.SOCK_STREAM, endpoint, health.timeout_s) as connection,
        closing(HTTPConnection(endpoint.address, endpoint.port)) as http,
    ):
        http.sock = connection
        http.request("GET", quote(health.path, safe=punctuation), headers={"Connection": "close"})
        with http.getresponse() as response:
            if response.status != health.status:
                return f"{endpoint}{health.path} answered {response.status} instead of {health.status}"
            return _wrong(health, response.read(ANSWER_BYTES)) if health.pattern or health.expect is not None else ""


def _wrong(health: Health, answer: bytes) -> str:
    """What is wrong with an answer, "" when it is the expected one."""
    if health.expect is not None and answer != health.expect:
        return f"answered {answer[:SHOWN_BYTES]!r} instead of {health.expect[:SHOWN_BYTES]!r}"
    if health.pattern and not re.search(health.pattern, answer.decode(errors="replace")):
        return f"answered {answer[:SHOWN_BYTES]!r}, where {health.pattern!r} is not found"
    return ""


def _run(health: Health, environment: Mapping[str, str]) -> str:
    name = health.command[0]
    with tempfile.TemporaryFile() as output:  # a pipe would stay open as long as any grandchild holds it
        try:
            process = subprocess.Popen(
                health.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        except OSError as error:
            return f"{name} cannot be run: {error.strerror}"
        try:
            status = process.wait(health.timeout_s)
        except subprocess.TimeoutExpired:
            return f"{name} did not end within {health.timeout_s:g} s"
        finally:  # also when a signal ends this command meanwhile
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status == 0:
            return ""
        ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        output.seek(max(0, output.seek(0, os.SEEK_END) - SAID_BYTES))
        said = output.read().decode(errors="replace").strip().rpartition("\n")[2]
        return f"{name} {ended}" + (f": {said}" if said else "")
