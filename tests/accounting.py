"""What it takes to account for a run of any size: logs as the workers leave them, and a process that reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness import records, wire
from harness.ledger import BackendLog, Plan, account

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RATE", "SILENT", "Effort", "effort_of", "write_logs"]

T0 = 1_700_000_000_000_000_000
RATE = 200_000
SILENT = 10_007  # every so many-th datagram stays without an answer
STREAMS = 4
ROOM = 2  # logs have room for so many times what is written, as a stage makes them


class Effort(NamedTuple):
    """What an account took, and what it found."""

    cpu_s: float
    peak_mib: float  # of all memory: the mapped logs are part of it
    totals: dict[str, int]


def write_logs(folder: Path, count: int) -> None:
    """Logs of `count` datagrams in four streams at 200,000/s, in the order of arrival, one swap in the middle."""
    stream = np.arange(count) % STREAMS
    seq = np.arange(count) // STREAMS
    sent = T0 + seq * STREAMS * 1_000_000_000 // RATE + 5_000
    came = sent + np.random.default_rng(1).integers(5_000, 50_000, count)
    order = np.argsort(came, kind="stable")
    seen = np.zeros(count, list(records.SEEN_FIELDS.items()))
    seen["stream"], seen["seq"], seen["recv_ns"] = stream[order], seq[order], came[order]
    seen["replied_ns"], seen["port"], seen["family"] = seen["recv_ns"] + 3_000, 1001, 4
    heard = np.zeros(count, list(records.RECEIVED_FIELDS.items()))
    for name in ("stream", "seq", "recv_ns"):
        heard[name] = seen[name]
    heard["recv_ns"] += 20_000
    heard["who"] = np.where(np.arange(count) < count // 2, wire.BLUE, wire.GREEN)
    for number in range(STREAMS):
        _write(folder / f"sent-{number}", sent[number::STREAMS], room=1)
    _write(folder / "blue", seen[: count // 2], room=ROOM)
    _write(folder / "green", seen[count // 2 :], room=ROOM)
    _write(folder / "received", heard[np.arange(1, count + 1) % SILENT != 0], room=ROOM)


def effort_of(folder: Path, count: int) -> Effort:
    """Account for the logs in `folder` in a process of its own."""
    argv = [sys.executable, "-m", "tests.accounting", str(folder), str(count)]
    root = Path(__file__).parents[1]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=root)
    return Effort(**json.loads(done.stdout))


def _write(path: Path, array: NDArray[Any], *, room: int) -> None:
    with path.open("wb") as file:
        file.write(records.HEADER.pack(len(array), 0))
        array.tofile(file)
        file.truncate(records.HEADER.size + room * array.nbytes)


def _account(folder: Path, count: int) -> dict[str, int]:
    each = count // STREAMS
    result = account(
        [Plan(number, "outside", 4, RATE // STREAMS, each) for number in range(STREAMS)],
        t0_ns=T0,
        sent={number: records.read_sent(folder / f"sent-{number}") for number in range(STREAMS)},
        received=[records.read_received(folder / "received")],
        backends=[
            BackendLog(who, records.read_seen(folder / name))
            for name, who in (("blue", wire.BLUE), ("green", wire.GREEN))
        ],
        swaps_ns=[T0 + count // 2 * 1_000_000_000 // RATE],
    )
    return dict(result.totals)


def _main() -> None:
    """Account, and say what it took: the memory is this process's own, whatever its parent's was."""
    import time

    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    began = time.process_time()
    totals = _account(folder, count)
    cpu_s = time.process_time() - began
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"cpu_s": cpu_s, "peak_mib": int(peak_kib) / 1024, "totals": totals}))  # noqa: T201 - its answer


if __name__ == "__main__":
    _main()
