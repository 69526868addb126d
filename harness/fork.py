"""What workers are forks of: `python -m harness.fork FD`, on a socket to the owner.

It has imported what a worker needs, but for scapy; it is standard library only. So none has to wait for an interpreter
of its own. It ends when nobody holds the owner's end of the socket any more, and its forks with it.
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
from contextlib import suppress
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
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, forks cannot be reaped
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
        answer: dict[str, Any]
        try:
            if "reap" in order:
                _, status, used = os.wait4(order["reap"], 0)
                answer = {"exit_code": os.waitstatus_to_exitcode(status), "user_s": used.ru_utime}
            else:
                answer = {"pid": os.fork()}
        except OSError as error:
            answer = {"errno": error.errno}
        if answer.get("pid") == 0:
            owner.close()
            return order["role"], fds
        for fd in fds:
            os.close(fd)
        with suppress(BrokenPipeError):  # it has ended meanwhile: the next order will not come
            owner.send(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
