"""The story of a deployment: release -> launch -> healthy -> SWAP -> verify -> retire; and what undoes or finishes it.

Until the swap any failure leaves the old backend serving and the new one gone. After it there is only forward, or
back by a swap like any other. The journal says at every moment which of the two it is.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from swapper.errors import DeployError, HookError, StateError, SwapperError, UnhealthyError
from swapper.health import Checks
from swapper.journal import Entry, Phase
from swapper.model import PortSet, UdpMode
from swapper.provision import provision
from swapper.receipts import Receipt, Recorder
from swapper.recipe import Step
from swapper.reconcile import Action, reconcile
from swapper.retire import retire

if TYPE_CHECKING:
    from swapper.operations import Swapped
    from swapper.releases import Release
    from swapper.site import Site

__all__ = ["deploy", "finish", "revive", "rollback"]

LOG_LINES = 30


def deploy(site: Site, ref: str | None) -> Receipt:
    """Move the service onto release `ref`, or the newest; until the swap, any failure leaves the old backend serving.

    Raises FetchError, DeployError, UnhealthyError (exit 3), KernelRefusedError, LockedError.
    """
    receipt = Receipt(site.service.name, "deploy", time.time(), release=ref or "")
    recorder = Recorder(site.service, receipt, site.receipts, say=site.say)
    with recorder.told():
        with recorder.step(Step.FETCH):
            release = site.releases.fetch(ref)
        receipt.release, receipt.digest = release.tag, release.digest
        with site.locked(f"swapper deploy {site.service.name} {release.tag}"):
            # Another command may have pruned it meanwhile; what is here is not fetched again.
            _deploy_locked(site, site.releases.fetch(release.tag), recorder)
    return receipt


def rollback(site: Site) -> Receipt:
    """Back to the release that served before: at once where its backend still runs, else by deploying it again."""
    receipt = Receipt(site.service.name, "rollback", time.time())
    recorder = Recorder(site.service, receipt, site.receipts, say=site.say)
    with recorder.told(), site.locked(f"swapper rollback {site.service.name}"):
        source = site.serving()
        if source is None:
            raise DeployError(f"{site.service.name} serves nothing yet; deploy a release: swapper deploy ...")
        if not _is_back_at_once(site, source, recorder):
            current = site.serving_tag(source)
            tag = site.receipts.previous(current) or site.older_than(current)
            if not tag or site.releases.get(tag) is None:
                raise DeployError(f"no release before {current or 'the present one'} is kept on this host")
            release = site.releases.fetch(tag)  # its image may have to be loaded again
            receipt.release, receipt.digest = release.tag, release.digest
            _deploy_locked(site, release, recorder)
    return receipt


def finish(site: Site) -> None:
    """Finish or undo what a deployment that died has left; the caller holds the service's lock."""
    entry = site.journal.read()
    if entry is None:
        return
    kernel = site.traffic()
    alive = {port_set for port_set in PortSet if site.is_alive(port_set)}
    action = reconcile(entry, kernel, alive)
    site.say(f"{entry.service}: the deployment of {entry.tag} died while {entry.phase}; {action.value}")
    receipt = Receipt(entry.service, "recovery", time.time(), entry.tag, source=entry.source, to=entry.to)
    if entry.source:
        receipt.previous = site.tag_on(entry.source)
    recorder = Recorder(site.service, receipt, site.receipts, say=site.say)
    with recorder.told():
        receipt.result = "undone" if action in (Action.UNDO, Action.RETURN) else "finished"
        match action:
            case Action.UNDO:
                _undo(site, entry)
            case Action.VERIFY:
                try:
                    _forward(site, entry, recorder, None)
                except UnhealthyError as error:  # settled: what the caller came for goes on
                    site.say(f"{entry.service}: {error}")
            case Action.RETURN:
                _return(site, entry, recorder)
            case Action.RETIRE:
                site.journal.turn(Phase.RETIRING)
                _retire(site, entry, recorder, None)


def revive(site: Site) -> str:
    """Start the backend that should serve again where it does not run, as after a reboot; its release, or ""."""
    with site.locked(f"swapper apply {site.service.name}"):
        site.releases.sweep()
        active = site.serving()
        tag = site.serving_tag(active) if active else ""
        if active is None or not tag or not site.death(active):
            return ""
        release = site.releases.fetch(tag)
        site.backends.stop(active)
        started = site.backends.launch(
            provision(site.service, active, tag=release.tag, image=release.image, files=release.folder / "files")
        )
        site.backends.confirm(started)
        return release.tag


def _deploy_locked(site: Site, release: Release, recorder: Recorder) -> None:
    source = site.serving()
    to = source.other if source else PortSet.BLUE
    receipt = recorder.receipt
    receipt.source, receipt.to, receipt.previous = source, to, site.tag_on(source) if source else ""
    entry = Entry(site.service.name, release.tag, to, source, Phase.LAUNCHING, receipt.started_at)
    with ExitStack() as undo:
        site.journal.begin(entry)
        undo.callback(_undo_unless_moved, site, entry)
        with recorder.step(Step.LAUNCH):
            site.clear(to)
            if source is None:  # nothing serves: whatever an earlier life has left is in nobody's way, and of no use
                site.backends.stop(to.other)
            backend = site.backends.launch(
                provision(site.service, to, tag=release.tag, image=release.image, files=release.folder / "files")
            )
        site.journal.turn(Phase.CHECKING)
        with recorder.step(Step.HEALTH):
            receipt.health_attempts = _await_healthy(site, to)
        site.journal.turn(Phase.SWAPPING)
        with recorder.step(Step.SWAP):
            swapped = _swap(site, to, receipt)
        undo.pop_all()  # traffic has moved: from here only forward, or back by a swap
    site.say(f"{site.service.name}: {release.tag} serves on {to} (process {backend.pid})")
    _forward(site, entry, recorder, swapped)


def _await_healthy(site: Site, port_set: PortSet) -> int:
    try:
        return _checks(site, port_set).wait_healthy()
    except UnhealthyError as error:
        raise UnhealthyError(f"{error}{_last_words(site, port_set)}") from error


def _checks(site: Site, port_set: PortSet, *, public: bool = False) -> Checks:
    return Checks(
        probe=site.probe(port_set, public=public),
        death=lambda: site.death(port_set),
        health=site.service.recipe.health,
        clock_s=site.host.clock_s,
        sleep=site.host.sleep,
        say=lambda text: site.say(f"{site.service.name}: {text}"),
    )


def _last_words(site: Site, port_set: PortSet) -> str:
    try:
        logs = site.backends.logs(port_set, LOG_LINES)
    except SwapperError as error:
        return f"\n(its log cannot be read: {error})"
    return f"\nits last lines:\n{logs}" if logs else "\n(it wrote nothing)"


def _swap(site: Site, to: PortSet, receipt: Receipt) -> Swapped | None:
    """Move traffic to `to`; the first time, begin to carry it. None where there was nothing to move from."""
    if receipt.source is None:
        receipt.generation = site.host.apply_locked(site.service, first=to).generation
        return None
    swapped = site.host.swap_locked(site.service, to)
    receipt.generation, receipt.flows_moved = swapped.generation, swapped.flows[swapped.source]
    return swapped


def _forward(site: Site, entry: Entry, recorder: Recorder, swapped: Swapped | None) -> None:
    """Traffic has moved: watch the new backend, then retire the old one, or go back to it."""
    site.journal.turn(Phase.VERIFYING)
    site.activate(entry.tag)
    try:
        with recorder.step(Step.VERIFY):
            why = _verify(site, entry.to)
    except HookError as error:
        why = str(error)
    if why and entry.source and site.is_alive(entry.source):
        site.say(f"{entry.service}: {entry.tag} failed under traffic: {why}; moving back to {entry.source}")
        words = _last_words(site, entry.to)
        _return(site, entry, recorder)
        recorder.receipt.result = "returned"
        raise UnhealthyError(f"{entry.tag} failed under traffic: {why}; {entry.source} serves again{words}")
    site.journal.turn(Phase.RETIRING)
    _retire(site, entry, recorder, swapped)
    if why:
        raise UnhealthyError(f"{entry.tag} failed under traffic: {why}; nothing else runs to move back to")


def _verify(site: Site, port_set: PortSet) -> str:
    """Ask through the public port, then watch for the bake time; "" when all is well, else why not."""
    return _checks(site, port_set, public=True).watch(site.service.recipe.bake_s)


def _return(site: Site, entry: Entry, recorder: Recorder) -> None:
    """Move traffic back to the old backend at once, then stop the new one."""
    site.journal.turn(Phase.RETURNING)
    cut = replace(site.service, udp=UdpMode.CUT)
    recorder.receipt.generation = site.host.swap_locked(cut, entry.source).generation
    if entry.source:
        site.activate(site.tag_on(entry.source))
    _undo(site, entry)


def _undo_unless_moved(site: Site, entry: Entry) -> None:
    """Undo a deployment that failed; one whose traffic has moved already is the next command's to finish."""
    noted = site.journal.read()
    if noted and noted.phase is Phase.SWAPPING and site.traffic() is entry.to:
        site.say(f"{entry.service}: traffic has moved to {entry.to}; run: swapper apply {entry.service}, to finish it")
    elif noted:
        _undo(site, noted)


def _undo(site: Site, entry: Entry) -> None:
    """Stop a backend that does not serve; one that has had traffic is given time for what it still owes."""
    backend = site.backends.find(entry.to)
    is_kept = entry.phase is Phase.LAUNCHING and backend is not None and backend.tag != entry.tag
    end = site.journal.end
    try:
        site.journal.turn(Phase.UNDOING)
    except StateError as error:  # a full disk must not keep a backend alive that nobody wants
        site.say(f"{entry.service}: {error}")
        end = site.journal.drop
    if entry.phase in (Phase.LAUNCHING, Phase.CHECKING):
        if not is_kept:  # an old one that was kept is still in its place
            site.backends.stop(entry.to)
    else:
        retire(site, entry.to)
    end()


def _retire(site: Site, entry: Entry, recorder: Recorder, swapped: Swapped | None) -> None:
    """The new backend has proved itself: end the drain, stop the old one, forget old releases."""
    try:
        if backend := site.backends.find(entry.to):
            site.backends.confirm(backend)
        with recorder.step(Step.RETIRE):
            _end_old(site, entry, swapped)
    except HookError as error:
        site.say(f"{entry.service}: the backend on {entry.source} stays, until its place is needed: {error}")
    except SwapperError as error:
        recorder.receipt.result = "unfinished"
        raise DeployError(
            f"{entry.tag} serves on {entry.to}, but the old backend is not retired yet: {error}; "
            f"then run: swapper apply {entry.service}"
        ) from error
    site.prune(recorder.receipt.previous)
    site.journal.end()


def _end_old(site: Site, entry: Entry, swapped: Swapped | None) -> None:
    if swapped:
        site.host.drain(swapped)
    else:
        site.host.end_drain(site.service)
    if entry.source and not site.service.recipe.execution.keep_old:
        retire(site, entry.source)


def _is_back_at_once(site: Site, source: PortSet, recorder: Recorder) -> bool:
    """Move traffic to a backend that still runs on the other set; whether there was one."""
    to = source.other
    if not site.is_alive(to):
        return False
    receipt = recorder.receipt
    receipt.release, receipt.previous = site.tag_on(to), site.tag_on(source)
    receipt.source, receipt.to = source, to
    with recorder.step(Step.SWAP):  # a cut: who is still on the bad release is to leave it now
        swapped = site.host.swap_locked(replace(site.service, udp=UdpMode.CUT), to)
    receipt.generation, receipt.flows_moved = swapped.generation, swapped.flows[swapped.source]
    site.activate(receipt.release)
    return True
