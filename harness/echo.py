"""Echo what comes in on inherited sockets: `python echo.py CORE FD...`; says when it is ready, ends when killed.

UDP sockets are bound, TCP ones listen. Standard library only, and nothing of the harness: it has to be up in
milliseconds.
"""

import os
import select
import socket
import sys

__all__ = ["main"]

ROOM = memoryview(bytearray(65536))  # for any datagram


def main() -> None:
    """Answer on one core."""
    core, *fds = (int(word) for word in sys.argv[1:])
    os.sched_setaffinity(0, {core})
    inherited = {fd: socket.socket(fileno=fd) for fd in fds}
    datagrams = {fd: sock for fd, sock in inherited.items() if sock.type == socket.SOCK_DGRAM}
    listeners = {fd: sock for fd, sock in inherited.items() if fd not in datagrams}
    connections: dict[int, socket.socket] = {}
    with select.epoll() as epoll:
        for fd in fds:
            epoll.register(fd, select.EPOLLIN)
        print("ready", flush=True)  # noqa: T201 - what the owner waits for
        while True:
            for fd, _ in epoll.poll():
                if fd in datagrams:
                    size, address = datagrams[fd].recvfrom_into(ROOM)
                    datagrams[fd].sendto(ROOM[:size], address)
                elif fd in connections:
                    if not _answered(connections[fd]):
                        connections.pop(fd).close()
                else:
                    connection, _ = listeners[fd].accept()
                    connections[connection.fileno()] = connection
                    epoll.register(connection.fileno(), select.EPOLLIN)


def _answered(connection: socket.socket) -> bool:
    """Whether the connection had something to answer, and is still there."""
    try:
        size = connection.recv_into(ROOM)
        connection.sendall(ROOM[:size])
    except ConnectionError:
        return False
    return size > 0


if __name__ == "__main__":
    main()
