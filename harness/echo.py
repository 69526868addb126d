"""Echo what comes in on inherited sockets: `python echo.py CORE FD...`; says when it is ready, ends when killed.

Standard library only, and nothing of the harness: it has to be up in milliseconds.
"""

import os
import select
import socket
import sys

__all__ = ["main"]


def main() -> None:
    """Answer on one core."""
    core, *fds = (int(word) for word in sys.argv[1:])
    os.sched_setaffinity(0, {core})
    sockets = {fd: socket.socket(fileno=fd) for fd in fds}
    with select.epoll() as epoll:
        for fd in fds:
            epoll.register(fd, select.EPOLLIN)
        print("ready", flush=True)  # noqa: T201 - what the owner waits for
        while True:
            for fd, _ in epoll.poll():
                data, address = sockets[fd].recvfrom(2048)
                sockets[fd].sendto(data, address)


if __name__ == "__main__":
    main()
