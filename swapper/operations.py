"""What the commands do: apply, swap, status, remove. Each begins by reading the kernel.

A swap writes what is meant before it moves traffic, so a command killed at any instant leaves either the old state,
or a meaning that `apply` carries out. Between the two the kernel is never half moved; on the iptables engines, never
within a family.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from swapper import dataplane as dataplanes
from swapper.config import Config
from swapper.dataplane import Dataplane, Observation, TakenOut
from swapper.deployments import Deployments
from swapper.drain import Drain, Verdict
from swapper.errors import ConfigError, SwapperError
from swapper.localports import unreserved
from swapper.lock import service_lock, table_lock
from swapper.model import SERVICE_NAME, PortSet, Protocol, Service, Swap, UdpMode
from swapper.state import Mapped, StateFile

__all__ = ["Applied", "Host", "Report", "Swapped", "has_net_admin"]

CAP_NET_ADMIN = 12
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` did to one service; `repaired` holds what was wrong before, in words."""

    service: str
    active: PortSet
    generation: int
    changed: bool
    repaired: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Swapped:
    """What `swap` did, or, for a dry run, would do (`script`, and no change)."""

    service: Service
    source: PortSet
    to: PortSet
    generation: int
    dataplane: Dataplane
    changed: bool
    commit_ms: float
    flows: dict[PortSet, int | None]
    script: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What `status` found of one service."""

    service: Service
    meant: Mapped | None
    kernel: Observation
    dataplane: Dataplane
    flows: dict[PortSet, int | None]

    @property
    def in_sync(self) -> bool:
        """Whether kernel, state and configuration agree."""
        return self.kernel.intact and self.meant is not None and self.meant.active is self.kernel.active


@dataclass(slots=True)
class Host:
    """One host's configuration, state and kernel. `say` hears what a person should know; `clock_s` is monotonic."""

    config: Config
    say: Callable[[str], None] = lambda _: None
    open: Callable[[Service], Dataplane] = dataplanes.for_service
    take_out: Callable[..., TakenOut] = dataplanes.take_out
    clock_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    states: StateFile = field(init=False)
    deployments: Deployments = field(init=False)

    def __post_init__(self) -> None:
        self.states = StateFile(self.config.state_dir)
        self.deployments = Deployments(self)

    def service(self, name: str) -> Service:
        """The service of that name. Raises ConfigError, which lists those that there are."""
        if name not in self.config.services:
            known = ", ".join(sorted(self.config.services)) or "none"
            raise ConfigError(f"{self.config.path}: no service is called {name!r}; there are: {known}")
        return self.config.services[name]

    def folder(self, service: Service) -> Path:
        """Where the deployments of a service keep what they know."""
        return self.config.state_dir / "services" / service.name

    @contextmanager
    def locked(self, service: Service, command: str) -> Iterator[None]:
        """Hold the service's lock as `command`; what a deployment that died has left is settled first."""
        with service_lock(self.config.run_dir, service.name, command):
            self.deployments.recover(service)
            yield

    def apply(self, service: Service) -> Applied:
        """Make the kernel agree with the state; the first time, activate what the kernel has, or blue."""
        with self.locked(service, f"swapper apply {service.name}"):
            return self.apply_locked(service)

    def apply_locked(self, service: Service, first: PortSet = PortSet.BLUE) -> Applied:
        """`apply` for a caller that holds the service's lock; `first` is activated where nothing is yet."""
        meant = self.states.read().get(service.name)
        plane = self.open(service)
        seen = plane.observe(service)
        active = meant.active if meant else seen.active or first
        generation = meant.generation if meant else 1
        if meant and seen.intact and seen.active is active:
            with table_lock(self.config.run_dir), _uninterrupted():
                if seen.litter:
                    plane.cut(service)
                self._sweep(plane, service)  # what a command that died between two engines has left behind
            self._warn(service)
            return Applied(service.name, active, generation, changed=False, repaired=())
        self._check_place(service, active)
        with table_lock(self.config.run_dir), _uninterrupted():
            self._install(plane, service, Mapped(active, generation), meant, seen)
            self._sweep(plane, service)
        self._warn(service)
        repaired = seen.faults if meant else ()
        if meant and seen.active not in (None, active):
            repaired = (f"the kernel carried {seen.active}, the state says {active}", *repaired)
        return Applied(service.name, active, generation, changed=True, repaired=repaired)

    def swap(self, service: Service, to: PortSet | None) -> Swapped:
        """Move traffic to `to`, or to the set that is not active; waits for a drain to end."""
        with self.locked(service, f"swapper swap {service.name}"):
            result = self.swap_locked(service, to)
            if result.changed:
                self.deployments.moved(service, result.to)
                self.drain(result)
            return result

    def swap_locked(self, service: Service, to: PortSet | None) -> Swapped:
        """`swap` for a caller that holds the service's lock, and ends the drain itself (`drain`).

        Raises SwapperError for a set that cannot take traffic.
        """
        meant = self.states.read().get(service.name)
        plane = self.open(service)
        seen = plane.observe(service)
        if not seen.intact:
            seen = self._repair(service, plane, seen, meant)
        assert seen.active is not None  # noqa: S101 - `intact` says so, the type checker cannot know
        source, generation = seen.active, meant.generation if meant else 1
        to = to or source.other
        flows = plane.flows(service)
        if to is source:
            if meant is None or meant.active is not to:
                self.states.write(service.name, Mapped(to, generation))
            return Swapped(service, source, to, generation, plane, False, 0.0, flows)
        if why := self.deployments.unready(service, to):
            raise SwapperError(f"{service.name}: traffic stays on {source}: {why}")
        swap = Swap(service, to, service.udp)
        commit_ms = self._commit(plane, swap, meant, generation + 1)
        return Swapped(service, source, to, generation + 1, plane, True, commit_ms, flows)

    def drain(self, swapped: Swapped) -> None:
        """Wait until the flows that may stay are gone or the deadline has come, then cut; at once without a drain."""
        service = swapped.service
        if service.udp is not UdpMode.DRAIN or not service.of(Protocol.UDP):
            return
        try:
            self._drain(swapped.dataplane, service, swapped.source)
        except SwapperError as error:  # traffic has moved, and the kernel ends a drain by itself
            self.say(f"{service.name}: traffic moved to {swapped.to}, but its drain could not be ended: {error}")

    def end_drain(self, service: Service) -> None:
        """Wait for a drain that a command which died has begun, if there is one, then cut."""
        plane = self.open(service)
        draining = plane.observe(service).draining
        if draining:
            self._drain(plane, service, draining.port_set)

    def adopt(self, service: Service, active: PortSet) -> None:
        """Let the state say what the kernel does; the caller holds the service's lock."""
        meant = self.states.read().get(service.name)
        self.states.write(service.name, Mapped(active, meant.generation if meant else 1))

    def dry_run(self, service: Service, to: PortSet | None) -> Swapped:
        """What `swap` would commit, and which flows it would move; changes nothing."""
        meant = self.states.read().get(service.name)
        plane = self.open(service)
        seen = plane.observe(service)
        if seen.active is None or not seen.intact:
            raise SwapperError(_not_whole(service, seen))
        to = to or seen.active.other
        generation = meant.generation if meant else 1
        script = plane.script(Swap(service, to, service.udp)) if to is not seen.active else ""
        return Swapped(service, seen.active, to, generation, plane, False, 0.0, plane.flows(service), script)

    def status(self, service: Service) -> Report:
        """What the kernel does with a service, and whether that is what was meant."""
        meant = self.states.read().get(service.name)
        plane = self.open(service)
        seen = plane.observe(service)
        return Report(service, meant, seen, plane, plane.flows(service))

    def remove(self, name: str) -> bool:
        """Take out every rule of a service, on every dataplane of this host; whether there were any."""
        known = name in self.states.read()  # a file that cannot be trusted stops the command before it takes rules out
        if not SERVICE_NAME.fullmatch(name):
            self.service(name)
        lock = service_lock(self.config.run_dir, name, f"swapper remove {name}")
        with lock, table_lock(self.config.run_dir), _uninterrupted():
            taken = self.take_out(name)
            for where, error in taken.remaining[1:]:
                self.say(f"{name}: rules may remain of {where}: {error}")
            if taken.remaining:  # so what they were meant to do stays on record
                raise taken.remaining[0][1]
            self.states.write(name, None)
        if not (taken.found or known):
            self.service(name)
        return taken.found

    def _install(
        self, plane: Dataplane, service: Service, meaning: Mapped, before: Mapped | None, seen: Observation
    ) -> None:
        """Say what is meant, then install; when that fails and changed nothing, mean what was meant before."""
        self.states.write(service.name, meaning)
        try:
            plane.install(service, meaning.active)
        except Exception:
            try:
                changed = plane.observe(service) != seen
            except Exception:  # noqa: BLE001 - an engine that cannot be read has hardly been programmed
                changed = False
            if not changed and before != meaning:
                self.states.write(service.name, before)
            raise

    def _sweep(self, plane: Dataplane, service: Service) -> None:
        """Take the service out of every other dataplane: two that carry it would disagree at the next swap.

        Raises SwapperError when one may keep its rules; all the others are cleared then.
        """
        taken = self.take_out(service.name, but=plane)
        if taken.remaining:
            remain = "; ".join(f"{where}: {error}" for where, error in taken.remaining)
            raise SwapperError(
                f"{service.name}: carried by {plane.name} on {plane.engine} now, but old rules remain of {remain}"
            )

    def _repair(self, service: Service, plane: Dataplane, seen: Observation, meant: Mapped | None) -> Observation:
        """Make a broken installation whole before it is swapped. Raises SwapperError when there never was one."""
        if meant is None:
            raise SwapperError(_not_whole(service, seen))
        self._check_place(service, seen.active or meant.active)
        self.say(f"{service.name}: repairing first: {'; '.join(seen.faults)}")
        with table_lock(self.config.run_dir), _uninterrupted():
            plane.install(service, seen.active or meant.active)
            self._sweep(plane, service)
        return plane.observe(service)

    def _commit(self, plane: Dataplane, swap: Swap, meant: Mapped | None, generation: int) -> float:
        """Say what is meant, then move; when the kernel refuses, mean what was meant before."""
        with table_lock(self.config.run_dir), _uninterrupted():
            self._sweep(plane, swap.service)  # what an `apply` that died between two engines has left behind
            self.states.write(swap.service.name, Mapped(swap.to, generation))
            try:
                return plane.apply(swap)
            except Exception as error:
                before = meant or Mapped(swap.source, generation - 1)
                try:
                    moved = plane.observe(swap.service).active is swap.to
                except Exception as blind:  # noqa: BLE001 - whatever it was, the state must say what was before
                    self.states.write(swap.service.name, before)
                    raise SwapperError(f"{error}\nand then the kernel could not be read: {blind}") from error
                if moved:
                    self.say(f"{swap.service.name}: traffic moved to {swap.to}, but then: {error}")
                    return 0.0
                self.states.write(swap.service.name, before)
                raise

    def _drain(self, plane: Dataplane, service: Service, source: PortSet) -> None:
        """Wait until no flow stays on `source`, or the deadline; then cut."""
        drain = Drain(self.clock_s() + service.drain_timeout_s)
        told_s = -1.0
        while True:
            left, now_s = plane.staying(service), self.clock_s()
            verdict = drain.verdict(left, now_s=now_s)
            if verdict is not Verdict.WAIT:
                break
            if now_s - told_s >= 1:
                remaining_s = drain.remaining_s(now_s=now_s)
                self.say(f"{service.name}: {left} flows stay on {source}, {remaining_s:.0f} s until they are cut")
                told_s = now_s
            self.sleep(min(POLL_S, drain.remaining_s(now_s=now_s)))
        with table_lock(self.config.run_dir), _uninterrupted():
            plane.cut(service)
        self.say(f"{service.name}: drained" if verdict is Verdict.DRAINED else f"{service.name}: {left} flows were cut")

    def _check_place(self, service: Service, port_set: PortSet) -> None:
        """Raise SwapperError where rules would lead traffic past the backend that serves."""
        if why := self.deployments.misplaced(service, port_set):
            raise SwapperError(f"{service.name}: nothing was changed: {why}")

    def _warn(self, service: Service) -> None:
        """Say what on this host can harm the service, with the command that mends it."""
        found, mend = unreserved(service)
        if found:
            self.say(f"{service.name}: {found}; mend: {mend}")


def has_net_admin() -> bool:
    """Whether this process may program netfilter."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> CAP_NET_ADMIN & 1)


def _not_whole(service: Service, seen: Observation) -> str:
    return f"{service.name}: {'; '.join(seen.faults)}; run: swapper apply {service.name}"


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM for the few milliseconds between saying and doing."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
