"""`memory`: the dataplane that ships for tests and for trying commands without root; it moves nothing."""

from __future__ import annotations

from swapper.dataplane.base import Draining, Observation
from swapper.errors import KernelRefusedError
from swapper.model import DataplaneName, Engine, PortSet, Protocol, Service, Swap, UdpMode

__all__ = ["Memory"]


class Memory:
    """Keeps every promise of the protocol in dictionaries. `live_flows` is what a drain finds; tests set it."""

    name = DataplaneName.MEMORY
    engine = Engine.MEMORY

    def __init__(self) -> None:
        self.live_flows = 0
        self.refusing = False  # a kernel that rejects every transaction
        self._installed: dict[str, tuple[Service, PortSet]] = {}
        self._staying: dict[str, tuple[PortSet, int]] = {}

    def rehearse(self) -> None:
        """Nothing is ever missing here."""

    def observe(self, service: Service) -> Observation:
        """What was installed last."""
        if service.name not in self._installed:
            return Observation(None, (f"memory has nothing of {service.name}",))
        installed, active = self._installed[service.name]
        same = installed.ports == service.ports and installed.protect == service.protect
        faults = () if same else (f"the rules of {service.name} are not those of the configuration",)
        staying = self._staying.get(service.name)
        return Observation(active, faults, Draining(*staying) if staying else None)

    def install(self, service: Service, active: PortSet) -> None:
        """Carry the whole service on `active`."""
        self._commit()
        self._installed[service.name] = (service, active)

    def script(self, swap: Swap) -> str:
        """One line a port."""
        return "".join(f"{p.protocol} {p.public} -> {p.target(swap.to)}\n" for p in swap.service.ports)

    def apply(self, swap: Swap) -> float:
        """Move the service; it took no time."""
        self._commit()
        self._staying.pop(swap.service.name, None)
        if swap.udp is UdpMode.DRAIN and swap.service.of(Protocol.UDP):
            self._staying[swap.service.name] = (swap.source, self.live_flows)
        self._installed[swap.service.name] = (swap.service, swap.to)
        return 0.0

    def staying(self, service: Service) -> int:
        """How many flows the last drain let stay."""
        return self._staying.get(service.name, (PortSet.BLUE, 0))[1]

    def cut(self, service: Service) -> None:
        """End a drain."""
        self._commit()
        self._staying.pop(service.name, None)

    def uninstall(self, name: str) -> bool:
        """Forget the service."""
        self._commit()
        self._staying.pop(name, None)
        return self._installed.pop(name, None) is not None

    def flows(self, service: Service) -> dict[PortSet, int | None]:
        """All live flows are on the active set."""
        _, active = self._installed.get(service.name, (service, None))
        return {port_set: self.live_flows if port_set is active else 0 for port_set in PortSet}

    def _commit(self) -> None:
        if self.refusing:
            raise KernelRefusedError("memory was told to refuse, nothing moved")
