"""The probe: a header that says which scheduled datagram this is, and a body that shows any damage.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

__all__ = ["Probe", "decode", "encode", "encode_unchecked", "intact", "stamped"]

MAGIC: Final = 0x5377  # "Sw"
PROBE: Final = 0
PUSH: Final = 1

NOBODY: Final = 0
BLUE: Final = 1
GREEN: Final = 2
WHO: Final[dict[str, int]] = {"blue": BLUE, "green": GREEN}

HEADER: Final = struct.Struct("!HBBIHII")  # magic, kind, who, run, stream, flow, seq
CRC: Final = struct.Struct("!I")
WHO_OFFSET: Final = 3
BODY_OFFSET: Final = HEADER.size + CRC.size
MIN_PAYLOAD: Final = 64
MAX_PAYLOAD: Final = 8192


class Probe(NamedTuple):
    """What one datagram says about itself; `intact` is false where its bytes were damaged."""

    kind: int
    who: int
    run: int
    stream: int
    flow: int
    seq: int
    intact: bool


def encode(*, run: int, stream: int, flow: int, seq: int, size: int, who: int = NOBODY, kind: int = PROBE) -> bytes:
    """A datagram of `size` bytes (64..8192); the body depends on seq, so mixed-up fragments show.

    Raises ValueError if the size is out of range.
    """
    if not MIN_PAYLOAD <= size <= MAX_PAYLOAD:
        raise ValueError(f"payload of {size} bytes: allowed are {MIN_PAYLOAD} to {MAX_PAYLOAD}")
    return encode_unchecked(run, stream, flow, seq, size, who, kind)


def encode_unchecked(run: int, stream: int, flow: int, seq: int, size: int, who: int, kind: int) -> bytes:
    """`encode` for loops that have checked the size once and cannot afford keywords."""
    # The checksum leaves `who` out: a backend stamps it without reading the rest.
    header = HEADER.pack(MAGIC, kind, NOBODY, run, stream, flow, seq)
    body = (header[-4:] * (size >> 2))[: size - BODY_OFFSET]
    crc = zlib.crc32(body, zlib.crc32(header))
    if who:
        header = stamped(header, who)
    return header + CRC.pack(crc) + body


def stamped(datagram: bytes | bytearray | memoryview, who: int) -> bytes:
    """The same datagram, said to come from backend `who`."""
    copy = bytearray(datagram)
    copy[WHO_OFFSET] = who
    return bytes(copy)


def decode(data: bytes | bytearray | memoryview, run: int) -> Probe | None:
    """The probe in `data`; None if it is too short, foreign, or of another run."""
    if len(data) < BODY_OFFSET:
        return None
    magic, kind, who, of_run, stream, flow, seq = HEADER.unpack_from(data)
    if magic != MAGIC or of_run != run:
        return None
    return Probe(kind, who, of_run, stream, flow, seq, intact(data))


def intact(data: bytes | bytearray | memoryview) -> bool:
    """Whether header and body carry the checksum that they were sent with."""
    head = bytearray(data[: HEADER.size])
    head[WHO_OFFSET] = NOBODY
    (crc,) = CRC.unpack_from(data, HEADER.size)
    return bool(zlib.crc32(data[BODY_OFFSET:], zlib.crc32(head)) == crc)
