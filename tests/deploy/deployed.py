"""What the tests of deployments share: a host with a service to deploy, releases to deploy, and clients that stream."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness import ledger, records, specs
from harness.scenario import Scenario
from harness.stage import sent_slots
from harness.topology import OUTSIDE_AND_HOST, Side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.netns import Net
    from harness.workers import Worker

SWAPPER = str(Path(sys.executable).with_name("swapper"))
SOURCE = Path(__file__).with_name("echo.c")
SIDES: tuple[Side, ...] = ("outside", "inside")
LONGER = 2  # times as long as asked, streams go on where what is played under them takes its time
TAIL_NS = 500_000_000  # and that much after it
FAULTLESS = ("lost_up", "lost_down", "misaddressed", "misdelivered", "corrupted", "receiver_dropped", "not_sent")


def compiled(folder: Path) -> Path:
    """The backend, one static binary."""
    binary = folder / "echo"
    subprocess.run(["gcc", "-O2", "-static", "-o", str(binary), str(SOURCE)], check=True, capture_output=True)
    return binary


def archive(binary: Path, behaviour: str, tag: str, path: Path, **config: Any) -> None:
    """An image as `docker save` writes it: from scratch, with one static binary and how it is to behave."""
    layer = _tar({"echo": (binary.read_bytes(), 0o755), "behaviour": (behaviour.encode(), 0o644)})
    description = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": [f"TAG={tag}"], **config},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    text = json.dumps(description).encode()
    name = f"{hashlib.sha256(text).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [f"swapper-test:{tag}"], "Layers": ["layer.tar"]}]
    files = {name: (text, 0o644), "layer.tar": (layer, 0o644), "manifest.json": (json.dumps(manifest).encode(), 0o644)}
    path.write_bytes(gzip.compress(_tar(files), compresslevel=1))


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Deployed:
    """A service of processes on a host; `folder` holds its configuration, state, releases and logs."""

    kind = "process"
    public_ports = '[{ protocol = "udp", public = 1000, blue = 1001, green = 1002 }]'
    backend = 'command = ["{files}/echo", "{files}/behaviour", "LOGS"]'
    source = 'source = "local"\npath = "FOLDER/builds/{tag}"'

    def __init__(self, net: Net, folder: Path, binary: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.net, self.host, self.folder, self.binary = net, net["host"], folder, binary
        self.config = folder / "swapper.toml"
        self.logs = folder / "logs"
        self.state = folder / "state"
        self.env = {**os.environ, **(env or {})}
        for path in (self.logs, folder / "builds"):
            path.mkdir(exist_ok=True)
        self.configure()

    def configure(self, *, backend: str = "", deploy: str = "", more: str = "", deadline_s: float = 8) -> None:
        """Write the configuration; the texts are lines of the tables of those names."""
        text = (
            f'state_dir = "{self.state}"\nrun_dir = "{self.folder}/run"\n'
            f"[services.game]\nports = {self.public_ports}\n"
            f"[services.game.swap]\ndrain_timeout = 3\n"
            f'[services.game.backend]\nkind = "{self.kind}"\n{self.backend}\nstop_grace = 2\n{backend}\n'
            f"[services.game.release]\n{self.source}\n"
            '[services.game.health]\nkind = "udp"\nsend = "ready?"\ninterval = 0.05\ntimeout = 0.15\n'
            f"deadline = {deadline_s}\n"
            f"[services.game.deploy]\nsettle = 0.5\n{deploy}\n{more}\n"
        )
        self.config.write_text(text.replace("LOGS", str(self.logs)).replace("FOLDER", str(self.folder)))

    def build(self, tag: str, **behaviour: int) -> str:
        """Make a release; `behaviour` is what echo.c reads (boot_ms, service_ms, never_ready, ...)."""
        where = self.folder / "builds" / tag
        where.mkdir()
        shutil.copy(self.binary, where / "echo")
        (where / "behaviour").write_text(_lines(behaviour))
        return tag

    def types(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `swapper` as a user of the host would."""
        return self.host.run(
            [SWAPPER, *words, "--config", str(self.config)], check=False, env=self.env, timeout_s=timeout_s
        )

    def does(self, *words: str) -> Any:
        """The document of a command that must succeed."""
        done = self.types(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def deploys(self, tag: str) -> Any:
        """The receipt of a deployment that must succeed."""
        return self.does("deploy", "game", tag)

    def status(self) -> Any:
        """The document on the one service."""
        return self.does("status")["services"][0]

    def running(self) -> dict[str, str]:
        """The release that really runs on each set, by the processes of the host."""
        found: dict[str, str] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.logs).encode() not in (path / "cmdline").read_bytes():
                    continue
                variables = dict(v.split("=", 1) for v in (path / "environ").read_text().split("\0") if "=" in v)
            except OSError:
                continue
            if "SWAPPER_SET" in variables:
                assert variables["SWAPPER_SET"] not in found, "two backends on one port set"
                found[variables["SWAPPER_SET"]] = variables["SWAPPER_RELEASE"]
        return found

    def clean(self) -> None:
        """End what runs; the namespace's end does not end processes."""
        for port_set in ("blue", "green"):
            record = self.state / "services/game/backends" / f"{port_set}.json"
            if record.exists():
                pid = json.loads(record.read_text())["pid"]
                try:
                    os.killpg(pid, 9)
                except ProcessLookupError:
                    continue


def _lines(behaviour: Mapping[str, int]) -> str:
    return "".join(f"{name} {value}\n" for name, value in behaviour.items())


class Load:
    """Steady streams from outside and inside, for `seconds` and until the ledger is asked for."""

    def __init__(
        self, town: Deployed, *, seconds: float, rate_per_s: int = 2000, topology: Any = OUTSIDE_AND_HOST
    ) -> None:
        self.town = town
        self.folder = town.folder / f"load-{time.monotonic_ns()}"
        self.folder.mkdir()
        self.least_ns = int(seconds * 1e9)
        most_s = seconds * LONGER
        scenario = Scenario(sides=SIDES, families=(4,), rate_per_s=rate_per_s, seconds=most_s, pattern="both")
        self.streams = specs.streams(scenario, topology, self.folder)
        self.t0_ns = 0
        self._stack = ExitStack()
        self._workers: dict[str, Worker] = {}

    def __enter__(self) -> Self:
        """Start them; they have run for half a second when this returns."""
        for node, streams in self.streams.items():
            spec = {
                "run": 9,
                "log": str(self.folder / f"received-{node}"),
                "capacity": sum(stream["count"] for stream in streams) * 2 + 10_000,
                "linger_ms": 800,
                "streams": streams,
            }
            worker = self.town.net[node].spawn("client", spec)
            self._workers[node] = self._stack.enter_context(worker)
        self.t0_ns = time.time_ns() + 100_000_000
        for worker in self._workers.values():
            worker.go(self.t0_ns)
        while time.time_ns() < self.t0_ns + 500_000_000:
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ledger(self) -> ledger.Ledger:
        """End the streams; what became of every datagram."""
        now_ns = time.time_ns()
        most_ns = self.t0_ns + LONGER * self.least_ns
        assert now_ns + TAIL_NS <= most_ns, "the streams ended before what was played under them, or too soon after it"
        end_ns = max(self.t0_ns + self.least_ns, now_ns + TAIL_NS)
        for worker in self._workers.values():
            worker.offer(f"until {end_ns}")
        reports = [worker.result(timeout_s=(end_ns - now_ns) / 1e9 + 60) for worker in self._workers.values()]
        slots = {one["id"]: one["slots"] for report in reports for one in report["streams"]}
        plans = [{**stream, "count": slots[stream["id"]]} for streams in self.streams.values() for stream in streams]
        logs = [
            ledger.BackendLog(specs.WHO[path.name.partition("-")[0]], _of_streams(records.read_seen(path)))
            for path in sorted(self.town.logs.glob("*.log"))
        ]
        return ledger.account(
            [
                ledger.Plan(s["id"], s["side"], s["family"], s["rate_per_s"], s["count"], "echo", s["phase_ns"])
                for s in plans
            ],
            t0_ns=self.t0_ns,
            sent={s["id"]: sent_slots(s) for s in plans},
            received=[records.read_received(self.folder / f"received-{node}") for node in self.streams],
            backends=logs,
            client_drops={one["id"]: one["drops"] for report in reports for one in report["streams"]},
        )


def _of_streams(seen: Any) -> Any:
    """Without the probes."""
    return seen[(seen["flags"] & records.FOREIGN) == 0]


def faults(account: ledger.Ledger) -> dict[str, int]:
    """Every fate but being answered, that happened."""
    return {name: count for name, count in account.to_json().items() if name in FAULTLESS and count}


def wait_until(what: str, come: Any, *, within_s: float = 20) -> None:
    """Until `come()` is true; fails with `what` otherwise."""
    give_up_s = time.monotonic() + within_s
    while not come():
        assert time.monotonic() < give_up_s, f"{what} did not come within {within_s} s"
        time.sleep(0.005)
