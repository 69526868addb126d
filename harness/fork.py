"""What workers are forks of: `python -m harness.fork FD`, on a socket to the owner.

It has imported all that a worker needs, which is standard library only: an interpreter for each would be ready far
later. It ends with its owner, and its forks with it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from harness import backends, load, streams, tcp
from harness.worker import read_spec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["main"]

CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1
PR_SET_TIMERSLACK: Final = 29
ORDER_SIZE: Final = 1 << 12
MOST_FDS: Final = 16
ROLES: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    "backend": backends.serve,
    "client": streams.stream,
    "tcp": tcp.connect,
    "load": load.load,
    "sink": load.sink,
}


def main() -> None:
    """Fork for every order; each fork plays its role and ends."""
    # Ctrl-C is the owner's to handle: it still needs the reports.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Workers live for seconds; a collection in mid-run would make slots late.
    gc.disable()
    parent = os.getpid()
    role, fds = _forked(socket.socket(fileno=int(sys.argv[1])))
    *standard, namespace = fds[:4]
    for number, fd in enumerate(standard):
        os.dup2(fd, number)
        os.close(fd)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_TIMERSLACK, 1)
    if os.getppid() != parent:
        return  # it died before the lines above
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(namespace)
    ROLES[role]({**read_spec(), "fds": fds[4:]})


def _forked(owner: socket.socket) -> tuple[str, list[int]]:
    """Returns in each fork: the role it was made for, and its descriptors."""
    while True:
        message, fds, _, _ = socket.recv_fds(owner, ORDER_SIZE, MOST_FDS)
        if not message:
            sys.exit()  # the owner has ended
        order = json.loads(message)
        if "reap" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                owner.close()
                return order["role"], fds
            for fd in fds:
                os.close(fd)
        owner.send(str(answer).encode())


if __name__ == "__main__":
    main()
