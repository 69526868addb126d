"""Many datagrams per system call: sendmmsg(2) and recvmmsg(2) on buffers that are set up once.

Python's socket module has neither. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket

__all__ = ["Batch"]

MSG_DONTWAIT: Final = 0x40
CONTROL_SIZE: Final = 64
TIMESPEC: Final = struct.Struct("@qq")
CMSG_DATA_OFFSET: Final = 16  # struct cmsghdr on 64-bit Linux: size_t, int, int


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("hdr", _MsgHdr), ("length", ctypes.c_uint32))


_LIBC = ctypes.CDLL(None, use_errno=True)


class Batch:
    """`slots` buffers of `size` bytes each, ready for one system call.

    `data` is one writable view of all buffers, one after the other; `size` is the stride.
    """

    def __init__(self, slots: int, size: int, *, control: bool = False) -> None:
        self.slots = slots
        self.size = size
        self._buffer = ctypes.create_string_buffer(slots * size)
        self.data = memoryview(self._buffer).cast("B")
        self._control = ctypes.create_string_buffer(slots * CONTROL_SIZE)
        self.control = memoryview(self._control).cast("B")
        self._iovs = (_IoVec * slots)()
        self.headers = (_MMsgHdr * slots)()
        self._wants_control = control
        for index in range(slots):
            iov = self._iovs[index]
            iov.base = ctypes.addressof(self._buffer) + index * size
            iov.length = size
            header = self.headers[index].hdr
            header.iov = ctypes.pointer(iov)
            header.iovlen = 1
            if control:
                header.control = ctypes.addressof(self._control) + index * CONTROL_SIZE
                header.controllen = CONTROL_SIZE

    def send(self, sock: socket.socket, count: int) -> int:
        """Send the first `count` buffers without blocking; how many went; OSError if none did."""
        sent = int(_LIBC.sendmmsg(sock.fileno(), self.headers, count, MSG_DONTWAIT))
        if sent < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return sent

    def receive(self, sock: socket.socket) -> int:
        """Fill buffers with what is waiting, without blocking; how many datagrams came."""
        if self._wants_control:
            # The kernel overwrites the length with what it wrote.
            for index in range(self.slots):
                self.headers[index].hdr.controllen = CONTROL_SIZE
        count = int(_LIBC.recvmmsg(sock.fileno(), self.headers, self.slots, MSG_DONTWAIT, None))
        if count < 0:
            code = ctypes.get_errno()
            if code in {errno.EAGAIN, errno.EINTR}:
                return 0
            raise OSError(code, os.strerror(code))
        return count

    def length(self, index: int) -> int:
        """How many bytes came into buffer `index`."""
        return int(self.headers[index].length)

    def received_ns(self, index: int) -> int:
        """The kernel's receive time of buffer `index`, CLOCK_REALTIME ns (needs SO_TIMESTAMPNS)."""
        seconds, nanoseconds = TIMESPEC.unpack_from(self.control, index * CONTROL_SIZE + CMSG_DATA_OFFSET)
        return int(seconds) * 1_000_000_000 + int(nanoseconds)
