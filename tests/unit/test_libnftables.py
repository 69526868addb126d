"""A context of libnftables that is given back takes nothing with it."""

from __future__ import annotations

import ctypes
import signal
from types import SimpleNamespace

import pytest

from swapper.dataplane import libnftables
from swapper.dataplane.libnftables import Nftables


def test_a_signal_while_a_context_is_freed_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        nft_ctx_new=lambda _: int(signal.SIGUSR1),
        nft_ctx_free=ctypes.CDLL(None)["raise"],  # raise(3), of that signal
        nft_ctx_buffer_output=lambda _: 0,
        nft_ctx_buffer_error=lambda _: 0,
    )
    monkeypatch.setattr(libnftables, "_library", lambda: library)
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        contexts = [Nftables()]
        with pytest.raises(KeyboardInterrupt):
            contexts.clear()
    finally:
        signal.signal(signal.SIGUSR1, before)
