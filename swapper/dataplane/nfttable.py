"""One nftables table of Swapper's own: static rules, and elements that belong to services.

Every element carries its service's name as a comment, so the kernel itself says what is whose. The rules are written
once; a fingerprint of what the kernel then lists is kept inside the table, so that any later change to the rules
shows. Knows nothing of zones or rewriting: those are the dataplanes' business.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from swapper.dataplane.libnftables import Nftables
from swapper.errors import KernelRefusedError

__all__ = ["Element", "Extension", "NftTable", "Snapshot"]

FINGERPRINT_SET = "fingerprint"


class Element(NamedTuple):
    """One element of a map or, with an empty `value`, of a set; key and value in nft's own notation."""

    where: str
    key: str
    value: str = ""

    def text(self, comment: str) -> str:
        """The element as nft reads it."""
        return f'{self.key} comment "{comment}"' + (f" : {self.value}" if self.value else "")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the kernel holds of the table: every element with its owner, "" for one that Swapper did not add.

    `rules_intact`: the rules are as written, and every element has an owner.
    """

    exists: bool
    rules_intact: bool
    owned: dict[Element, str]

    def of(self, service: str) -> set[Element]:
        """The elements that belong to one service."""
        return {element for element, owner in self.owned.items() if owner == service}


@dataclass(frozen=True, slots=True)
class Extension:
    """Chains that a table has only while an element needs them; `chains` in an order in which they can be deleted."""

    text: str
    chains: tuple[str, ...]
    is_needed: Callable[[Iterable[Element]], bool]


class NftTable:
    """The table `inet NAME` with the static rules `body`, and those of `extension` while they are needed.

    `since` is the first Linux that takes them, `transient` the prefix of chains and sets that come and go.
    """

    def __init__(
        self, nft: Nftables, name: str, body: str, *, since: str, transient: str, extension: Extension | None = None
    ) -> None:
        self.nft = nft
        self.name = name
        self._body = body
        self._since = since
        self._transient = transient
        self._extension = extension

    def read(self) -> Snapshot:
        """Read the table; one listing."""
        objects = self.nft.table(self.name, elements=True)
        owned: dict[Element, str] = {}
        marker = ""
        for item in objects:
            container = item.get("map") or item.get("set")
            if container is None or container["name"].startswith(self._transient):
                continue
            for raw in container.get("elem", []):
                element, comment = _element(container["name"], raw)
                if container["name"] == FINGERPRINT_SET:
                    marker = comment
                else:
                    owned[element] = comment
        intact = bool(objects) and marker == self._marker(objects, owned) and "" not in owned.values()
        return Snapshot(bool(objects), intact, owned)

    def rehearse(self) -> None:
        """Raise MissingError or KernelRefusedError where the kernel would not take the rules; changes nothing."""
        if not self.nft.table(self.name, elements=False):
            self.nft.rehearse(self._whole({}), since=self._since)

    def replace(self, service: str, wanted: set[Element], before: Snapshot) -> None:
        """Make `wanted` exactly what the service owns, in one transaction; the rules too, when they are not right.

        A port that the configuration gave to this service is taken from the one that had it.
        """
        keys = {(element.where, element.key) for element in wanted}
        others = {e: owner for e, owner in before.owned.items() if owner not in (service, "") and e[:2] not in keys}
        by_owner = {**others, **dict.fromkeys(wanted, service)}
        if before.rules_intact:
            taken = set(before.owned) - set(others) - before.of(service)
            text = self.remove(sorted(taken)) + self.difference(service, before.of(service), wanted)
            was, will = self._extended(before.owned), self._extended(by_owner)
            if will and not was:
                text = self._add_extension() + text
            elif was and not will:
                text += self._delete_extension()
            if text:
                self.nft.run(text)
            if was != will:
                self._certify(by_owner)
            return
        try:
            self.nft.run(self._whole(by_owner))
        except KernelRefusedError:
            self.nft.rehearse(self._whole({}), since=self._since)  # is it the rules? then the kernel lacks something
            raise
        self._certify(by_owner)

    def difference(self, service: str, present: set[Element], wanted: set[Element]) -> str:
        """The text that turns `present` into `wanted`; "" when they are equal."""
        return self.remove(sorted(present - wanted)) + self.add(sorted(wanted - present), service)

    def add(self, elements: Iterable[Element], service: str) -> str:
        """The text that adds elements on behalf of a service."""
        return "".join(f"add element inet {self.name} {e.where} {{ {e.text(service)} }}\n" for e in elements)

    def remove(self, elements: Iterable[Element]) -> str:
        """The text that removes elements, by their keys."""
        return "".join(f"delete element inet {self.name} {e.where} {{ {e.key} }}\n" for e in elements)

    def drop(self) -> None:
        """Take the whole table out; nothing to take is not an error."""
        self.nft.run(f"table inet {self.name} {{ }}\ndelete table inet {self.name}\n")

    def _whole(self, by_owner: Mapping[Element, str]) -> str:
        """The text that writes the table anew."""
        return (
            f"table inet {self.name} {{ }}\ndelete table inet {self.name}\n"
            f"table inet {self.name} {{\n  set {FINGERPRINT_SET} {{ type mark; }}\n{self._body}}}\n"
            + (self._add_extension() if self._extended(by_owner) else "")
            + "".join(self.add([element], owner) for element, owner in by_owner.items())
        )

    def _extended(self, elements: Iterable[Element]) -> bool:
        return self._extension is not None and self._extension.is_needed(elements)

    def _add_extension(self) -> str:
        return f"table inet {self.name} {{\n{self._extension.text}}}\n" if self._extension else ""

    def _delete_extension(self) -> str:
        chains = self._extension.chains if self._extension else ()
        return "".join(f"flush chain inet {self.name} {chain}\n" for chain in chains) + "".join(
            f"delete chain inet {self.name} {chain}\n" for chain in chains
        )

    def _certify(self, elements: Iterable[Element]) -> None:
        """Note in the table that its rules are as they are meant; killed before, the next `apply` writes them again."""
        marker = self._marker(self.nft.table(self.name, elements=False), elements)
        self.nft.run(
            f"flush set inet {self.name} {FINGERPRINT_SET}\n"
            f'add element inet {self.name} {FINGERPRINT_SET} {{ 1 comment "{marker}" }}\n'
        )

    def _marker(self, objects: list[dict[str, Any]], elements: Iterable[Element]) -> str:
        """Digests of the rules, as this version writes them and as the kernel lists them, less handles and elements."""
        static = []
        for item in objects:
            ((kind, value),) = item.items()
            name = value.get("chain", "") if kind == "rule" else value.get("name", "")
            if kind != "metainfo" and not name.startswith(self._transient):
                static.append([kind, {k: v for k, v in value.items() if k not in ("handle", "elem")}])
        written = self._body + (self._add_extension() if self._extended(elements) else "")
        return f"{zlib.crc32(written.encode()):08x} {zlib.crc32(json.dumps(static, sort_keys=True).encode()):08x}"


def _element(where: str, raw: Any) -> tuple[Element, str]:
    """Read one element of libnftables' JSON: a key, or [key, value], the key perhaps wrapped with a comment."""
    key, value = raw if isinstance(raw, list) else (raw, "")
    comment = ""
    if isinstance(key, dict) and "elem" in key:
        comment = key["elem"].get("comment", "")
        key = key["elem"]["val"]
    return Element(where, _spell(key), _spell(value)), comment


def _spell(value: Any) -> str:
    """A key or value of the JSON in nft's text notation."""
    if isinstance(value, dict):
        if "concat" in value:
            return " . ".join(_spell(part) for part in value["concat"])
        for verdict in ("jump", "goto"):
            if verdict in value:
                return f"{verdict} {value[verdict]['target']}"
    return str(value)
