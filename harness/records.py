"""Logs that outlive their writer: fixed-capacity files, mapped into memory, one record a datagram.

Workers append with `struct` only; the owner reads with numpy after, or while, they run. What does not
fit is counted in the header, so that a full log can never pass for a quiet one.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Log", "LogOverflowError", "SentLog", "read_received", "read_seen", "read_sent"]

HEADER: Final = struct.Struct("<QQ")  # records written, records that did not fit
COUNT: Final = struct.Struct("<Q")

RECEIVED: Final = struct.Struct("<HIIqBB")  # stream, flow, seq, recv_ns, who, flags
SEEN: Final = struct.Struct("<HIIqqHBB")  # stream, flow, seq, recv_ns, replied_ns, port, family, flags
SENT: Final = struct.Struct("<q")  # sent_ns by seq; 0 = not sent

RECEIVED_FIELDS: Final = {
    "stream": "<u2",
    "flow": "<u4",
    "seq": "<u4",
    "recv_ns": "<i8",
    "who": "u1",
    "flags": "u1",
}
SEEN_FIELDS: Final = {
    "stream": "<u2",
    "flow": "<u4",
    "seq": "<u4",
    "recv_ns": "<i8",
    "replied_ns": "<i8",
    "port": "<u2",
    "family": "u1",
    "flags": "u1",
}
REPLIED_OFFSET: Final = 18

# flags
WRONG_SOURCE: Final = 1  # a reply from an address or port that was not asked
WRONG_FLOW: Final = 2  # a reply on another flow's socket
CORRUPT: Final = 4
FOREIGN: Final = 8  # no header of this run: the other fields say nothing
PUSHED: Final = 16  # sent by a backend unasked


class LogOverflowError(Exception):
    """A log was too small for its run: its counts prove nothing."""


class Log:
    """An append log of packed records in a file of fixed size; written by one thread."""

    def __init__(self, path: str, record: struct.Struct, capacity: int) -> None:
        self._size = record.size
        self._pack_into = record.pack_into
        self._capacity = capacity
        self.count = 0
        self.overflowed = 0
        with Path(path).open("w+b") as file:
            file.truncate(HEADER.size + capacity * record.size)
            # Allocated now: a full disk must fail here, not as SIGBUS in mid-run.
            os.posix_fallocate(file.fileno(), 0, HEADER.size + capacity * record.size)
            self.map = mmap.mmap(file.fileno(), 0)

    def append(self, *fields: int) -> int:
        """Write one record; its index, or -1 if the log is full (which its header then says)."""
        index = self.count
        if index >= self._capacity:
            self.overflowed += 1
            HEADER.pack_into(self.map, 0, index, self.overflowed)
            return -1
        self._pack_into(self.map, HEADER.size + index * self._size, *fields)
        self.count = index + 1
        COUNT.pack_into(self.map, 0, index + 1)
        return index


class SentLog:
    """When each datagram of one stream was sent, by seq; 0 is never."""

    def __init__(self, path: str, count: int) -> None:
        with Path(path).open("w+b") as file:
            os.posix_fallocate(file.fileno(), 0, HEADER.size + count * SENT.size)
            self._map = mmap.mmap(file.fileno(), 0)
        HEADER.pack_into(self._map, 0, count, 0)
        self.times = memoryview(self._map)[HEADER.size :].cast("q")


def read_received(path: str | Path) -> NDArray[np.void]:
    """A client's receive log as a structured array; LogOverflowError if it was too small."""
    return _read(path, RECEIVED_FIELDS)


def read_seen(path: str | Path) -> NDArray[np.void]:
    """A backend's log as a structured array; LogOverflowError if it was too small."""
    return _read(path, SEEN_FIELDS)


def read_sent(path: str | Path) -> NDArray[np.int64]:
    """A stream's send times in CLOCK_REALTIME ns by seq; 0 is never."""
    import numpy as np

    times: NDArray[np.int64] = np.fromfile(path, dtype="<i8", offset=HEADER.size)
    return times


def _read(path: str | Path, fields: dict[str, str]) -> NDArray[np.void]:
    import numpy as np

    dtype: Any = np.dtype(list(fields.items()))
    with Path(path).open("rb") as file:
        # Mapped, not read: a log has room for far more than was written, and what was is looked at once.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    count, overflowed = HEADER.unpack_from(data)
    if overflowed:
        raise LogOverflowError(f"{path}: {overflowed} records did not fit after {count}")
    records: NDArray[np.void] = np.frombuffer(data, dtype=dtype, count=count, offset=HEADER.size)
    return records
