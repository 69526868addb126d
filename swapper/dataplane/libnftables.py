"""The nftables engine: whole transactions as text, through libnftables in this process.

One call is one netlink batch: it all happens or nothing does. Knows nothing of services or zones.
Source: libnftables(3), libnftables-json(5).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import weakref
from typing import Any

from swapper.errors import KernelRefusedError, MissingError

__all__ = ["Nftables"]

OUTPUT_STATELESS, OUTPUT_JSON, OUTPUT_NUMERIC_PROTO, OUTPUT_TERSE = 1 << 2, 1 << 4, 1 << 7, 1 << 11
INSTALL = "apt-get install -y libnftables1 nftables"
LACKS = "Operation not supported"
# Of rules that are known to be right these say so as well: the kernel knows no such expression or chain type
# (nft_expr_type_get), or not all that is asked of one.
LACKS_OF_RULES = (LACKS, "No such file or directory", "Invalid argument")


class Nftables:
    """One libnftables context: it speaks to the network namespace in which it was made."""

    def __init__(self) -> None:
        self._lib = _library()
        self._context = self._lib.nft_ctx_new(0)
        if not self._context:
            raise MissingError("libnftables could not open a netlink socket: this kernel has no nf_tables")
        self._freed = _Freed(self, self._lib.nft_ctx_free)
        self._freed._as_parameter_ = self._context
        self._lib.nft_ctx_buffer_output(self._context)
        self._lib.nft_ctx_buffer_error(self._context)

    def run(self, script: str) -> None:
        """Commit `script` as one transaction.

        Raises KernelRefusedError with nft's own words, nothing of the script was applied then; or MissingError.
        """
        status, _, error = self._call(script, flags=0)
        if status:
            raise _refusal(error)

    def rehearse(self, rules: str, *, since: str) -> None:
        """Raise what keeps the kernel from taking `rules`, which any Linux from `since` on knows: it checks them only.

        MissingError where it lacks something, KernelRefusedError where it says anything else.
        """
        trial = Nftables()  # a context of its own: some releases keep what they have only tried
        trial._lib.nft_ctx_set_dry_run(trial._context, True)
        status, _, error = trial._call(rules, flags=0)
        if any(lack in error for lack in LACKS_OF_RULES):
            raise _lack(error, since)
        if status:
            raise _refusal(error)

    def table(self, name: str, *, elements: bool) -> list[dict[str, Any]]:
        """The objects of `inet NAME` (chains, rules, maps and sets), [] when there is no such table.

        Without `elements` the maps and sets are listed empty, which costs the same however full they are.
        """
        flags = OUTPUT_JSON | OUTPUT_STATELESS | OUTPUT_NUMERIC_PROTO | (0 if elements else OUTPUT_TERSE)
        return self._list(f"list table inet {name}", flags)

    def set_elements(self, table: str, name: str) -> list[Any]:
        """The elements of one set, [] when it is empty or not there."""
        objects = self._list(f"list set inet {table} {name}", OUTPUT_JSON | OUTPUT_NUMERIC_PROTO)
        return [element for item in objects for element in item.get("set", {}).get("elem", [])]

    def map_elements(self, table: str, name: str) -> list[Any]:
        """The elements of one map, as pairs of key and value."""
        objects = self._list(f"list map inet {table} {name}", OUTPUT_JSON | OUTPUT_NUMERIC_PROTO)
        return [element for item in objects for element in item.get("map", {}).get("elem", [])]

    def _list(self, command: str, flags: int) -> list[dict[str, Any]]:
        status, output, error = self._call(command, flags)
        if status:
            if "No such file or directory" in error:
                return []
            raise _refusal(error)
        return list(json.loads(output)["nftables"]) if output else []

    def _call(self, script: str, flags: int) -> tuple[int, str, str]:
        self._lib.nft_ctx_output_set_flags(self._context, flags)
        status = self._lib.nft_run_cmd_from_buffer(self._context, script.encode())
        output = self._lib.nft_ctx_get_output_buffer(self._context) or b""
        error = self._lib.nft_ctx_get_error_buffer(self._context) or b""
        return status, output.decode(), error.decode()


class _Freed(weakref.ref[Nftables]):
    """Frees a context once its owner is gone: takes 10 ms, and what a signal's handler raises in a `__del__` is lost.

    ctypes calls the function with what `_as_parameter_` says of this object: no line of Python runs meanwhile.
    """

    _as_parameter_: int


def _refusal(error: str) -> Exception:
    if "Operation not permitted" in error:
        return MissingError("changing nftables needs CAP_NET_ADMIN: run as root (sudo swapper ...)")
    if LACKS in error:
        return _lack(error)
    return KernelRefusedError(f"nftables refused the transaction, nothing moved:\n{error.strip()}")


def _lack(error: str, since: str = "") -> MissingError:
    release = os.uname().release
    too_old = since and _numbers(release) < _numbers(since)
    mend = (
        f"Linux {since} and later have it" if too_old else "load it: modprobe -a nft_ct nft_nat nft_fib_inet nft_masq"
    )
    return MissingError(
        f"nf_tables of this kernel, {release}, lacks something that the rules need; {mend}:\n{error.strip()}"
    )


def _numbers(release: str) -> list[int]:
    """`6.1.0-40-amd64` as 6, 1."""
    return [int(number) for number in re.findall(r"\d+", release)[:2]]


def _library() -> ctypes.CDLL:
    try:
        lib = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise MissingError(f"libnftables.so.1 is not on this host; bring it with: {INSTALL}") from error
    context, text = ctypes.c_void_p, ctypes.c_char_p
    lib.nft_ctx_new.restype, lib.nft_ctx_new.argtypes = context, [ctypes.c_uint32]
    lib.nft_ctx_free.restype, lib.nft_ctx_free.argtypes = None, [context]
    lib.nft_ctx_set_dry_run.restype, lib.nft_ctx_set_dry_run.argtypes = None, [context, ctypes.c_bool]
    lib.nft_ctx_buffer_output.argtypes = [context]
    lib.nft_ctx_buffer_error.argtypes = [context]
    lib.nft_ctx_output_set_flags.restype, lib.nft_ctx_output_set_flags.argtypes = (
        None,
        [context, ctypes.c_uint],
    )
    lib.nft_run_cmd_from_buffer.argtypes = [context, text]
    lib.nft_ctx_get_output_buffer.restype, lib.nft_ctx_get_output_buffer.argtypes = text, [context]
    lib.nft_ctx_get_error_buffer.restype, lib.nft_ctx_get_error_buffer.argtypes = text, [context]
    return lib
