"""nfnetlink: one socket to the kernel's netfilter, for what needs neither library nor tool. Knows no rule and no flow.

Source: include/uapi/linux/netlink.h, include/uapi/linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from swapper.errors import KernelRefusedError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["NESTED", "NLM_F_ACK", "Message", "attribute", "dump", "exists", "listed", "opened", "send"]

T = TypeVar("T")

NETLINK_NETFILTER = 12
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NESTED = 0x8000
DUMP_TRIES = 5


class Message(NamedTuple):
    """One message of a dump: its address family, and its attributes, not yet decoded."""

    family: int
    body: bytes

    @classmethod
    def read(cls, data: bytes, start: int, end: int) -> Self:
        """The message that lies there: a netlink header of 16 bytes, nfnetlink's own of 4, the attributes."""
        return cls(data[start + 16], data[start + 20 : end])

    def attributes(self) -> dict[int, bytes]:
        """What the message says, by the attribute's number."""
        found: dict[int, bytes] = {}
        at = 0
        while at + 4 <= len(self.body):
            length, kind = struct.unpack_from("=HH", self.body, at)
            found[kind & 0x3FFF] = self.body[at + 4 : at + length]
            at += max(4, length + 3 & ~3)
        return found


@contextmanager
def opened() -> Iterator[socket.socket]:
    """A socket to netfilter in the network namespace of the caller. Raises MissingError where there is none."""
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        raise MissingError(
            f"this kernel has no netfilter netlink ({error.strerror}); CONFIG_NF_CT_NETLINK is needed"
        ) from error
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        sock.bind((0, 0))
        yield sock


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def send(sock: socket.socket, kind: int, flags: int, family: int, body: bytes) -> None:
    """Ask or tell: the subsystem is the upper byte of `kind`."""
    message = struct.pack("=BBH", family, 0, 0) + body
    sock.send(struct.pack("=IHHII", 16 + len(message), kind, NLM_F_REQUEST | flags, 1, 0) + message)


def exists(kind: int) -> bool:
    """Whether the kernel has the subsystem of `kind`, a request that answers with one message and changes nothing.

    Asking loads the kernel's module, where there is one. Raises MissingError without CAP_NET_ADMIN.
    """
    with opened() as sock:
        send(sock, kind, 0, socket.AF_UNSPEC, b"")
        data = sock.recv(1 << 16)
    kind, number = struct.unpack_from("=4xH10xi", data)
    return kind != NLMSG_ERROR or _has_subsystem(-number)


def listed(kind: int, family: int, body: bytes = b"") -> list[Message]:
    """Everything that the kernel lists for one request; nothing where it has no such subsystem.

    Raises MissingError without CAP_NET_ADMIN.
    """
    try:
        return dump(kind, family, body, Message.read)
    except OSError as error:
        if _has_subsystem(error.errno or 0):
            raise KernelRefusedError(f"netfilter does not list what it has: {error.strerror}") from error
        return []


def dump(kind: int, family: int, body: bytes, read: Callable[[bytes, int, int], T]) -> list[T]:
    """What `read(data, start, end)` makes of each message that the kernel lists for one request, where it lies.

    An interrupted dump is asked for again. Raises OSError with the kernel's errno when it refuses.
    """
    for _ in range(DUMP_TRIES):
        with opened() as sock:
            send(sock, kind, NLM_F_DUMP, family, body)
            found, interrupted = _receive(sock, read)
        if not interrupted:
            return found
    raise KernelRefusedError(f"what netfilter lists was changed by others {DUMP_TRIES} times in a row; try again")


def _receive(sock: socket.socket, read: Callable[[bytes, int, int], T]) -> tuple[list[T], bool]:
    found: list[T] = []
    interrupted = False
    while True:
        data = sock.recv(1 << 20)
        at = 0
        while at < len(data):
            length, kind, flags = struct.unpack_from("=IHH", data, at)
            interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                number = -struct.unpack_from("=i", data, at + 16)[0] if length >= 20 else 0
                if number > 0:
                    raise OSError(number, os.strerror(number))
                return found, interrupted
            found.append(read(data, at, at + length))
            at += (length + 3) & ~3


def _has_subsystem(number: int) -> bool:
    """Whether an error is of a subsystem that is there: nfnetlink_rcv_msg says EINVAL for one that is not."""
    if number == errno.EPERM:
        raise MissingError("reading netfilter needs CAP_NET_ADMIN: run as root (sudo swapper ...)")
    return number not in (errno.EINVAL, errno.EOPNOTSUPP)
