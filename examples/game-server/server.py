#!/usr/bin/env python3
"""A small game server: `server.py PORT`. Clients send inputs, the world ticks, and every client is pushed a snapshot.

`input NUMBER` joins the sender to the game; `snapshot RELEASE TICK NUMBER...` names the inputs that this tick applied.
`ready?` is answered `ready RELEASE` at once, for health probes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

TICK_S = 1 / 30
GONE_S = 0.5  # a client that sent nothing for so long is pushed nothing
RELEASE = os.environ.get("SWAPPER_RELEASE", "none")


class Client:
    """What the server knows of a player."""

    def __init__(self) -> None:
        self.inputs: list[bytes] = []
        self.heard_s = 0.0


def main() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    clients: dict[tuple[object, ...], Client] = {}
    tick, next_s = 0, time.monotonic()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", int(sys.argv[1])))
        sys.stderr.write(f"{RELEASE} serves on port {sys.argv[1]}\n")
        while True:
            next_s += TICK_S
            receive(sock, clients, until_s=next_s)
            tick += 1
            push(sock, clients, tick)


def receive(sock: socket.socket, clients: dict[tuple[object, ...], Client], *, until_s: float) -> None:
    """Take in what comes until the next tick."""
    while (left_s := until_s - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            data, address = sock.recvfrom(2048)
        except TimeoutError:
            return
        if data == b"ready?":
            sock.sendto(f"ready {RELEASE}".encode(), address)
        elif data.startswith(b"input "):
            client = clients.setdefault(address, Client())
            client.inputs.append(data.removeprefix(b"input "))
            client.heard_s = time.monotonic()


def push(sock: socket.socket, clients: dict[tuple[object, ...], Client], tick: int) -> None:
    """Push the world to every client, unasked; forget those that are gone."""
    for address, client in list(clients.items()):
        sock.sendto(b" ".join([f"snapshot {RELEASE} {tick}".encode(), *client.inputs]), address)
        client.inputs.clear()
        if time.monotonic() - client.heard_s > GONE_S:
            del clients[address]


if __name__ == "__main__":
    main()
