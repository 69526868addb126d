"""Other people's rules on nftables, from `nft --json list ruleset` (libnftables-json(5))."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

from swapper.dataplane import stateless, zones_nft
from swapper.dataplane.iptables import ran
from swapper.dataplane.libnftables import INSTALL
from swapper.doctor.rules import Chain, Effect, Rule
from swapper.errors import KernelRefusedError, MissingError

__all__ = ["parsed", "read"]

EFFECTS = {
    "accept": Effect.ACCEPT,
    "drop": Effect.REFUSE,
    "reject": Effect.REFUSE,
    "dnat": Effect.TRANSLATE,
    "redirect": Effect.TRANSLATE,
}
OF_NEW_FLOWS = {"new", "untracked"}
HARMLESS = {"counter", "log"}  # statements that ask nothing of a packet
OURS = {f"inet {zones_nft.TABLE}", f"inet {stateless.TABLE}"}


def read() -> list[Chain]:
    """Every chain of a table that is not Swapper's. Raises MissingError without the tool, KernelRefusedError."""
    if not shutil.which("nft"):
        raise MissingError(f"the nft tool is missing; bring it with: {INSTALL}")
    done = ran(["nft", "--json", "list", "ruleset"])
    if done.returncode:
        raise KernelRefusedError(f"nft: {done.stderr.strip()}")
    return [chain for chain in parsed(json.loads(done.stdout)["nftables"]) if chain.table not in OURS]


def parsed(objects: list[dict[str, Any]]) -> Iterator[Chain]:
    """The chains of one listing."""
    rules: dict[tuple[str, str], list[Rule]] = {}
    for rule in (item["rule"] for item in objects if "rule" in item):
        table = f"{rule['family']} {rule['table']}"
        undo = f"nft delete rule {table} {rule['chain']} handle {rule['handle']}"
        rules.setdefault((table, rule["chain"]), []).extend(
            _rule(statements, undo) for statements in _without_maps(rule["expr"])
        )
    for chain in (item["chain"] for item in objects if "chain" in item):
        table, name = f"{chain['family']} {chain['table']}", chain["name"]
        yield Chain(
            table,
            name,
            chain.get("type", ""),
            chain.get("hook", ""),
            chain.get("policy") == "drop",
            tuple(rules.get((table, name), ())),
            f"nft insert rule {table} {name} {{protocol}} dport {{port}} accept",
        )


def _without_maps(statements: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """A rule with a verdict map as one rule an element; a named map's elements are not known: it may accept."""
    for at, statement in enumerate(statements):
        if "vmap" in statement:
            before, key, data = statements[:at], statement["vmap"]["key"], statement["vmap"]["data"]
            elements = data["set"] if isinstance(data, dict) else [[data, {"accept": None}]]
            for value, verdict in elements:
                yield [*before, {"match": {"op": "==", "left": key, "right": value}}, verdict]
            return
    yield statements


def _rule(statements: list[dict[str, Any]], undo: str) -> Rule:
    effect, leads_to, conditional = Effect.NONE, [], False
    asked: dict[str, Any] = {}
    for statement in statements:
        ((kind, body),) = statement.items()
        effect = EFFECTS.get(kind, effect)
        conditional |= kind not in EFFECTS.keys() | HARMLESS
        if kind in ("jump", "goto"):
            leads_to.append(body["target"])
        elif kind == "match" and body["op"] != "!=" and isinstance(body["left"], dict):
            asked |= _asked(body["left"], _values(body["right"]))
    return Rule(effect, tuple(leads_to), conditional=conditional, undo=undo, **asked)


def _asked(left: dict[str, Any], values: list[str | range]) -> dict[str, Any]:
    """The fields of a Rule that one match fills."""
    ((kind, body),) = left.items()
    names = frozenset(value for value in values if isinstance(value, str))
    ports = tuple(value for value in values if isinstance(value, range))
    match kind, body:
        case "meta", {"key": "l4proto"}:
            return {"protocols": names}
        case "meta", {"key": "iif" | "iifname"} if names == {"lo"}:
            return {"for_new": False}
        case "ct", {"key": "state"} if not names & OF_NEW_FLOWS:
            return {"for_new": False}
        case "payload", {"protocol": "ip" | "ip6", "field": "protocol" | "nexthdr"}:
            return {"protocols": names}
        case "payload", {"protocol": "ip" | "ip6"}:
            return {}
        case "payload", {"protocol": protocol, "field": field}:
            by_port = {"ports": ports} if field == "dport" and ports else {}
            return by_port if protocol == "th" else {"protocols": frozenset({protocol}), **by_port}
    return {}


def _values(right: Any) -> list[str | range]:
    """The right side of a match as a list of names and ranges of numbers; what is named elsewhere is left out."""
    if isinstance(right, int):
        return [range(right, right + 1)]
    if isinstance(right, str):
        return [] if right.startswith("@") else [right]
    if isinstance(right, dict) and "range" in right:
        first, last = right["range"]
        return [range(first, last + 1)] if isinstance(first, int) else []
    if isinstance(right, dict) and "elem" in right:
        return _values(right["elem"]["val"])
    members = right.get("set", []) if isinstance(right, dict) else right
    return [value for member in members for value in _values(member)] if isinstance(members, list) else []
