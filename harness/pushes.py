"""What became of what backends sent unasked. Pure, as the ledger is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.ledger import FLAG_PUSHED, FLAG_WRONG_SOURCE, BackendLog, ImpossibleCountError, Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["account"]


def account(logs: Sequence[BackendLog], received: Sequence[Records], *, client_drops: int = 0) -> dict[str, int]:
    """What became of what backends sent unasked: pushed, received, lost, misaddressed, duplicate, ...

    Raises ImpossibleCountError if a client got a push that no backend logged.
    """
    pushed = _push_keys([(log.who, log.seen[(log.seen["flags"] & FLAG_PUSHED) != 0]) for log in logs])
    arrived = [records[(records["flags"] & FLAG_PUSHED) != 0] for records in received]
    proper = _push_keys([(0, records[records["flags"] == FLAG_PUSHED]) for records in arrived])
    astray = _push_keys([(0, records[(records["flags"] & FLAG_WRONG_SOURCE) != 0]) for records in arrived])
    everything = np.concatenate([proper, astray])
    if len(np.setdiff1d(everything, pushed)):
        raise ImpossibleCountError("a client got pushes that no backend logged")
    got, strays = np.unique(proper), np.setdiff1d(astray, proper)
    lost = len(pushed) - len(got) - len(strays)
    if client_drops > lost:
        raise ImpossibleCountError(f"clients dropped {client_drops} pushes, but only {lost} are missing")
    return {
        "pushed": len(pushed),
        "received": len(got),
        "lost": lost - client_drops,
        "misaddressed": len(strays),
        "receiver_dropped": client_drops,
        "duplicate": len(everything) - len(np.unique(everything)),
    }


def _push_keys(parts: Sequence[tuple[int, Any]]) -> NDArray[np.uint64]:
    """who, stream, flow and seq in one number each; flows up to 65,535, pushes up to 4 billion."""
    keys = [np.zeros(0, np.uint64)]
    for who, records in parts:
        said = records["who"] if who == 0 else np.full(len(records), who)
        key = said.astype(np.uint64) << np.uint64(60) | records["stream"].astype(np.uint64) << np.uint64(48)
        keys.append(key | records["flow"].astype(np.uint64) << np.uint64(32) | records["seq"].astype(np.uint64))
    return np.concatenate(keys)
