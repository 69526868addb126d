"""The narrow door to the kernel: what every dataplane promises, whatever mechanism and engine carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from swapper.model import DataplaneName, Engine, PortSet, Service, Swap

__all__ = ["Dataplane", "Draining", "Observation"]


@dataclass(frozen=True, slots=True)
class Draining:
    """Flows that may stay on `port_set` after a swap; `left` of them are not idle yet."""

    port_set: PortSet
    left: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What the kernel does with one service, read from the kernel alone.

    `active` is the set that new flows reach, None when no set has all of them. `faults` says in words what differs
    from a whole installation; empty means that the kernel carries exactly this service as it is configured.
    `litter` says that something is left of a drain whose command died; `cut` takes it out.
    """

    active: PortSet | None
    faults: tuple[str, ...] = ()
    draining: Draining | None = None
    litter: bool = False

    @property
    def intact(self) -> bool:
        """Whether the kernel carries the whole service on one set."""
        return self.active is not None and not self.faults


class Dataplane(Protocol):
    """One mechanism on one engine. Every change is one transaction (iptables: one commit per family and table).

    All methods raise KernelRefusedError when the kernel rejects a transaction (nothing moved then) and
    MissingError when the host lacks what they need. Callers hold the service's lock, for `install` and `uninstall`
    also the table lock.
    """

    name: DataplaneName
    engine: Engine

    def rehearse(self) -> None:
        """Raise MissingError where this host would not take the rules, as far as that shows without a change."""

    def observe(self, service: Service) -> Observation:
        """Read what the kernel does with `service`; changes nothing."""

    def install(self, service: Service, active: PortSet) -> None:
        """Make the kernel carry the whole service on `active`; repairs what others broke, leaves other services."""

    def script(self, swap: Swap) -> str:
        """The exact text that `apply(swap)` commits, without the flows that a drain lets stay."""

    def apply(self, swap: Swap) -> float:
        """Move the service, of which the kernel is intact; how long the commit took, in milliseconds."""

    def staying(self, service: Service) -> int:
        """How many flows a drain still keeps on the old set."""

    def cut(self, service: Service) -> None:
        """End a drain: what still stays moves now. Nothing to do is not an error."""

    def uninstall(self, name: str) -> bool:
        """Take out every rule of the service called `name`; whether there were any."""

    def flows(self, service: Service) -> dict[PortSet, int | None]:
        """Live flows per set; None where the mechanism does not know its flows."""
