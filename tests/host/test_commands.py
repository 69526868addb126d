"""The `swapper` command as its users meet it: documents, exit codes, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.netns import Namespace, build
from swapper.dataplane import open_dataplane
from swapper.lock import service_lock
from swapper.model import DataplaneName, Engine, PortSet
from tests import support

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

SWAPPER = str(Path(sys.executable).with_name("swapper"))
ZONES, NFT, IPT = DataplaneName.ZONES, Engine.NFTABLES, Engine.IPTABLES_NFT
every_real = pytest.mark.parametrize(("name", "engine"), support.REAL, ids=support.IDS)


@pytest.fixture
def host() -> Iterator[Namespace]:
    with build(support.LONELY) as net:
        yield net["host"]


class User:
    """Somebody at a shell of the host, with one configuration file."""

    def __init__(self, host: Namespace, config: Path) -> None:
        self.host = host
        self.config = config
        self.state = config.parent / "state" / "mapped.txt"

    def types(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.host.run([SWAPPER, *words, "--config", str(self.config)], check=False, **options)

    def does(self, *words: str) -> Any:
        """The document of a command that must succeed."""
        done = self.types(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def fails(self, code: int, *words: str, **options: Any) -> str:
        """What a command says that must end with `code`, without a traceback."""
        done = self.types(*words, **options)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr

    def service(self) -> Any:
        (service,) = self.does("status")["services"]
        return service


@pytest.fixture
def user(host: Namespace, tmp_path: Path) -> User:
    return User(host, support.configuration(tmp_path, ZONES, NFT))


@every_real
def test_apply_swap_status_remove(host: Namespace, tmp_path: Path, name: DataplaneName, engine: Engine) -> None:
    user = User(host, support.configuration(tmp_path, name, engine))
    (applied,) = user.does("apply")["services"]
    assert applied == {"service": "game", "active": "blue", "generation": 1, "changed": True, "repaired": []}
    assert user.does("apply", "game")["services"][0]["changed"] is False
    assert user.state.read_text() == "game blue 1\n"

    rehearsed = user.types("swap", "game", "--dry-run")
    assert rehearsed.stdout.startswith("# game: blue -> green, would move ")
    swapped = user.does("swap", "game")
    assert list(swapped) == [
        *("service", "from", "to", "generation", "dataplane", "engine", "changed", "commit_ms", "flows")
    ]
    assert swapped["commit_ms"] > 0
    assert swapped["flows"].keys() == {"blue", "green"}
    told = {key: swapped[key] for key in ("service", "from", "to", "generation", "dataplane", "engine", "changed")}
    assert told == {
        "service": "game",
        "from": "blue",
        "to": "green",
        "generation": 2,
        "dataplane": name,
        "engine": engine,
        "changed": True,
    }
    again = user.does("swap", "game", "--to", "green")
    assert (again["changed"], again["generation"]) == (False, 2)

    service = user.service()
    assert {"name", "active", "generation", "dataplane", "engine", "in_sync", "kernel", "ports", "flows"} <= set(
        service
    )
    assert (service["name"], service["active"], service["generation"]) == ("game", "green", 2)
    assert (service["dataplane"], service["engine"], service["in_sync"]) == (name, engine, True)
    assert service["kernel"] == {"active": "green"}
    assert service["ports"][0] == {"protocol": "udp", "public": 1000, "blue": "1001", "green": "1002"}

    assert user.does("remove", "game") == {"service": "game", "changed": True}
    assert user.does("remove", "game") == {"service": "game", "changed": False}
    assert not user.state.exists()
    with host.entered():
        assert "swapper" not in support.listing().lower()


def test_an_unknown_service_is_a_mistake_of_the_command_line(user: User) -> None:
    for words in (["apply", "gaem"], ["swap", "gaem"], ["status", "gaem"], ["remove", "gaem"]):
        assert "no service is called 'gaem'; there are: game" in user.fails(2, *words)
    assert "red" in user.fails(2, "swap", "game", "--to", "red")
    assert user.types("swop").returncode == 2


def test_an_engine_that_the_dataplane_cannot_use_is_a_mistake(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, DataplaneName.STATELESS, IPT))
    assert "engine" in user.fails(2, "apply")


def test_a_swap_before_any_apply_says_what_to_run(user: User) -> None:
    assert "run: swapper apply game" in user.fails(1, "swap", "game")
    assert "run: swapper apply game" in user.fails(1, "swap", "game", "--dry-run")


@every_real
def test_a_flushed_ruleset_shows_and_apply_repairs_it(
    host: Namespace, tmp_path: Path, name: DataplaneName, engine: Engine
) -> None:
    user = User(host, support.configuration(tmp_path, name, engine))
    user.does("apply")
    user.does("swap", "game")
    flush = [f"{flavour} -t {table} -F" for flavour in support.FLAVOURS for table in ("raw", "nat")]
    host.run(["sh", "-ec", "nft flush ruleset\n" + "\n".join(flush)])
    service = user.service()
    assert (service["in_sync"], service["active"], service["kernel"]) == (False, "green", {"active": None})
    assert "mend: swapper apply game" in user.types("status").stdout
    (applied,) = user.does("apply")["services"]
    assert applied["repaired"]
    assert (applied["active"], applied["generation"]) == ("green", 2)
    assert user.service()["in_sync"] is True


def test_when_kernel_and_state_disagree_apply_follows_the_state(user: User) -> None:
    user.does("apply")
    user.state.write_text("game green 7\n")
    service = user.service()
    assert (service["in_sync"], service["active"], service["kernel"]) == (False, "green", {"active": "blue"})
    (applied,) = user.does("apply")["services"]
    assert applied["repaired"] == ["the kernel carried blue, the state says green"]
    assert user.service()["kernel"] == {"active": "green"}


@pytest.mark.parametrize(
    "content",
    [b"", b"game blue 1\nchat gre", b"\xff\xfe\x00", b"game red 1\n", b"# version 9\ngame blue 1 and more\n"],
    ids=["empty", "half-written", "bytes", "corrupt", "future"],
)
def test_a_state_file_that_cannot_be_trusted_is_refused_and_kept(user: User, content: bytes) -> None:
    user.does("apply")
    user.does("swap", "game")
    user.state.write_bytes(content)
    for words in (["apply"], ["swap", "game"], ["status"], ["remove", "game"]):
        said = user.fails(1, *words)
        assert user.state.read_bytes() == content
    way = said[said.index("(mv ") + 1 : said.index(")")]
    subprocess.run(shlex.split(way), check=True)
    (applied,) = user.does("apply")["services"]
    assert applied["active"] == "green"
    assert user.service()["in_sync"] is True


def test_a_held_lock_says_who_and_since_when(user: User) -> None:
    user.does("apply")
    with service_lock(user.config.parent / "run", "game", "swapper swap game"):
        for words in (["apply"], ["swap", "game"], ["remove", "game"]):
            said = user.fails(5, *words)
            assert f"process {os.getpid()} (swapper swap game) since " in said
        assert user.service()["in_sync"] is True


class Client:
    """A client on 127.0.0.1 whose one flow keeps a drain waiting."""

    def __init__(self, host: Namespace) -> None:
        with host.entered():
            self.backends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for backend, port in zip(self.backends, (1001, 1002), strict=True):
            backend.bind(("127.0.0.1", port))
        self.socket.sendto(b"?", ("127.0.0.1", 1000))

    def close(self) -> None:
        for made in (*self.backends, self.socket):
            made.close()


@pytest.mark.parametrize("engine", [NFT, IPT, Engine.IPTABLES_LEGACY])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_drain_ends_the_command_and_not_the_swap(
    host: Namespace, tmp_path: Path, engine: Engine, number: signal.Signals
) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine, drain=True))
    user.does("apply")
    client = Client(host)
    command = host.popen([SWAPPER, "swap", "game", "--config", str(user.config)], stderr=subprocess.PIPE)
    assert command.stderr is not None
    assert b"1 flows stay on blue" in command.stderr.readline()
    command.send_signal(number)
    _, said = command.communicate(timeout=30)
    assert command.returncode == 128 + number
    assert b"nothing is half done" in said
    service = user.service()
    assert (service["in_sync"], service["kernel"]["active"]) == (True, "green")
    give_up = time.monotonic() + 30
    while service["draining"] is not None:
        assert service["draining"] == {"set": "blue", "left": 1}
        assert time.monotonic() < give_up
        time.sleep(0.1)
        service = user.service()
    assert service["in_sync"] is True
    user.does("apply")
    with host.entered():
        assert "stay_game" not in support.listing()
        assert "game-stay" not in support.listing()
        assert "sw-game" not in support.listing()
    client.close()


@pytest.mark.parametrize("engine", [NFT, IPT, Engine.IPTABLES_LEGACY])
def test_a_drain_that_reaches_its_deadline_is_cut(host: Namespace, tmp_path: Path, engine: Engine) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine, drain=True))
    user.does("apply")
    client = Client(host)
    done = user.types("swap", "game")
    assert done.returncode == 0, done.stderr
    assert "game: 1 flows were cut" in done.stderr or "game: drained" in done.stderr
    with host.entered():
        assert "stay_game" not in support.listing()
        assert "sw-game" not in support.listing()
    client.close()


def test_a_drain_that_nobody_listens_to_is_ended_all_the_same(user: User, tmp_path: Path) -> None:
    drain = User(user.host, support.configuration(tmp_path, ZONES, NFT, drain=True))
    drain.does("apply")
    client = Client(drain.host)
    reading, writing = os.pipe()
    os.close(reading)
    command = drain.host.popen([SWAPPER, "swap", "game", "--config", str(drain.config)], stderr=writing)
    os.close(writing)
    assert command.wait(timeout=30) == 0
    assert drain.service()["kernel"]["active"] == "green"
    with drain.host.entered():
        assert "stay_game" not in support.listing()
    client.close()


def ended_at_moments(user: User, number: signal.Signals, *, moments: int) -> Iterator[int]:
    """Swap again and again, and end each command by a signal at a later moment of its life; its exit code."""
    started = time.monotonic()
    user.does("swap", "game")
    whole_s = time.monotonic() - started  # whatever this machine's speed
    for moment in range(moments):
        words = [SWAPPER, "swap", "game", "--config", str(user.config)]
        with tempfile.TemporaryFile() as words_said:  # not a pipe: what it has started may hold it open
            command = user.host.popen(words, stdout=subprocess.DEVNULL, stderr=words_said)
            time.sleep(whole_s * moment / moments)
            command.send_signal(number)
            code = command.wait()
            words_said.seek(0)
            said = words_said.read()
            assert b"/swapper/cli.py" not in said  # a traceback
            # Python itself ends so over an interrupt while it starts: nothing of the command has begun.
            yield -number if b"Failed to import the site module" in said else code


@pytest.mark.parametrize("engine", [NFT, IPT, Engine.IPTABLES_LEGACY])
@pytest.mark.parametrize("drain", [False, True], ids=["cut", "drain"])
def test_killed_swaps_leave_nothing_half_applied(host: Namespace, tmp_path: Path, engine: Engine, drain: bool) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine, drain=drain))
    user.does("apply")
    for _ in ended_at_moments(user, signal.SIGKILL, moments=10):
        if engine is NFT:  # the others commit one family after the other
            assert user.service()["kernel"]["active"] in {"blue", "green"}
        user.does("apply")
        service = user.service()
        assert service["in_sync"] is True
        assert service["active"] == service["kernel"]["active"]


@pytest.mark.parametrize("engine", [NFT, IPT, Engine.IPTABLES_LEGACY])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_swap_ended_by_a_signal_is_whole_or_has_not_begun(
    host: Namespace, tmp_path: Path, engine: Engine, number: signal.Signals
) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine))
    user.does("apply")
    for code in ended_at_moments(user, number, moments=6):
        assert code in {0, 128 + number, -number}  # negative: before the command was imported
        service = user.service()
        assert service["in_sync"] is True  # without an apply in between
        assert service["active"] == service["kernel"]["active"]


@pytest.mark.parametrize(("ignored", "code"), [(False, -signal.SIGINT), (True, 7)])
def test_an_interrupt_while_the_command_is_imported_ends_it_without_a_traceback(
    tmp_path: Path, ignored: bool, code: int
) -> None:
    (tmp_path / "click.py").write_text("import sys\nprint(flush=True)\nsys.stdin.read()\nsys.exit(7)\n")
    words = [*(["env", "--ignore-signal=INT"] if ignored else []), SWAPPER, "status"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=env, stdin=pipe, stdout=pipe, stderr=pipe) as command:
        assert command.stdout is not None
        command.stdout.readline()
        command.send_signal(signal.SIGINT)
        _, said = command.communicate()
    assert (command.returncode, said) == (code, b"")


def test_a_killed_command_keeps_its_lock_until_its_commit_has_ended(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT))
    user.does("apply")
    slow = tmp_path / "bin" / "iptables-nft-restore"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ntouch {tmp_path}/begun\nsleep 2\nexec /usr/sbin/iptables-nft-restore "$@"\n')
    slow.chmod(0o755)
    words = [SWAPPER, "swap", "game", "--config", str(user.config)]
    command = host.popen(words, env={**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}"})
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    command.kill()
    command.wait()
    said = user.fails(5, "swap", "game")
    assert f"left running by process {command.pid} (swapper swap game)" in said
    while (done := user.types("apply")).returncode == 5:
        time.sleep(0.1)
    assert done.returncode == 0, done.stderr
    service = user.service()
    assert (service["in_sync"], service["active"], service["kernel"]["active"]) == (True, "green", "green")


def test_internal_ports_that_local_clients_may_take_are_named(user: User) -> None:
    taken = "internal ports 1001,1002,8081,8082 lie in ip_local_port_range 1000-9000"
    user.host.run(
        ["sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1000", "net.ipv4.ip_local_port_range=1000 9000"]
    )
    assert taken in user.types("apply").stderr
    user.host.run(["sysctl", "-qw", "net.ipv4.ip_local_reserved_ports=1000-1001,7000"])
    said = user.types("apply").stderr
    assert "internal ports 1002,8081,8082 lie" in said
    assert user.types("apply").stderr == said
    user.host.run(said.rpartition("mend: ")[2].split())
    assert user.types("apply").stderr == ""


def test_whoever_is_not_root_is_told_so(user: User) -> None:
    user.does("apply")
    # Root without capabilities, so that the file stays readable whatever the modes of the folders above it.
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    for words in (["apply"], ["swap", "game"], ["status"], ["remove", "game"]):
        done = user.host.run([*command, SWAPPER, *words, "--config", str(user.config)], check=False)
        assert done.returncode == 6, done.stderr
        assert "sudo swapper" in done.stderr


BLOCK = """
import ctypes, sys
class Without(ctypes.CDLL):
    def __init__(self, name, *rest, **more):
        if name and "nftables" in str(name):
            raise OSError(f"{name}: cannot open shared object file")
        super().__init__(name, *rest, **more)
if "libnftables" in sys.argv[1]:
    ctypes.CDLL = Without
if "iptc" in sys.argv[1]:
    sys.modules["iptc"] = None
sys.argv = ["swapper", *sys.argv[2:]]
from swapper.cli import main
main()
"""


def without(user: User, what: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command on a host that lacks a library."""
    argv = [sys.executable, "-c", BLOCK, what, *words, "--config", str(user.config)]
    return user.host.run(argv, check=False)


@pytest.mark.parametrize(
    ("engine", "what", "bring"),
    [
        (NFT, "libnftables", "apt-get install -y libnftables1"),
        (Engine.IPTABLES_LEGACY, "iptc", "pip install '.[legacy]'"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_brings_it(
    host: Namespace, tmp_path: Path, engine: Engine, what: str, bring: str
) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine))
    done = without(user, what, "apply")
    assert done.returncode == 6, done.stderr
    assert bring in done.stderr


def test_without_libnftables_the_default_engine_is_the_next_best(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, None))
    done = without(user, "libnftables", "apply", "--json")
    assert done.returncode == 0, done.stderr
    (service,) = json.loads(without(user, "libnftables", "status", "--json").stdout)["services"]
    assert (service["engine"], service["in_sync"]) == (IPT, True)


def without_tools(user: User, hide: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command on a host from whose files the mount `hide` has taken some."""
    argv = ["unshare", "--mount", "sh", "-ec", f'{hide}; exec "$@"', "sh", SWAPPER, *words]
    return user.host.run([*argv, "--config", str(user.config)], check=False)


@pytest.mark.parametrize("engine", [IPT, Engine.IPTABLES_LEGACY])
@pytest.mark.parametrize("words", [("apply",), ("swap", "game"), ("status",)], ids=lambda words: words[0])
def test_missing_iptables_is_named_with_the_command_that_brings_it(
    host: Namespace, tmp_path: Path, engine: Engine, words: tuple[str, ...]
) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine))
    done = without_tools(user, "mount -t tmpfs none /usr/sbin", *words)
    assert done.returncode == 6, done.stderr
    assert "is not on this host; bring it with: apt-get install -y iptables" in done.stderr


def test_missing_ipset_is_named_with_the_command_that_brings_it(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT, drain=True))
    user.does("apply")
    done = without_tools(user, f"mount --bind /dev/null {shutil.which('ipset')}", "swap", "game")
    assert done.returncode == 6, done.stderr
    assert "apt-get install -y ipset" in done.stderr
    service = user.service()
    assert (service["in_sync"], service["kernel"]["active"], service["generation"]) == (True, "blue", 1)


def shimmed(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment in which one tool is `script`."""
    tools = folder / "shims"
    tools.mkdir(exist_ok=True)
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}


def test_a_kernel_without_zones_is_told_apart_from_a_refusal(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT))
    words = "iptables-nft-restore: line 3 failed: No chain/target/match by that name."
    env = shimmed(tmp_path, "iptables-nft-restore", f"cat >/dev/null; echo '{words}' >&2; exit 2")
    assert words in user.fails(6, "apply", env=env)


def test_a_kernel_that_refuses_moves_nothing(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT))
    user.does("apply")
    env = shimmed(tmp_path, "ip6tables-nft-restore", "cat >/dev/null; echo 'line 4: RULE_REPLACE failed' >&2; exit 4")
    assert "RULE_REPLACE failed" in user.fails(4, "swap", "game", env=env)
    service = user.service()
    assert (service["in_sync"], service["kernel"]["active"], service["generation"]) == (True, "blue", 1)


def test_remove_passes_an_engine_that_does_not_work_here(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, NFT))
    user.does("apply")
    words = "iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument"
    env = shimmed(tmp_path, "iptables-nft-save", f"echo '{words}' >&2; exit 4")
    done = user.types("remove", "game", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert not user.state.exists()
    with host.entered():
        assert "swapper" not in support.listing().lower()


def test_remove_that_one_engine_refuses_says_so_and_stays_on_record(host: Namespace, tmp_path: Path) -> None:
    for engine in (IPT, NFT):  # as an `apply` leaves them that was killed before it took the old engine's rules out
        with host.entered():
            open_dataplane(ZONES, engine).install(support.game(ZONES, engine), PortSet.BLUE)
    user = User(host, support.configuration(tmp_path, ZONES, NFT))
    user.state.parent.mkdir()
    user.state.write_text("game blue 1\n")
    env = shimmed(tmp_path, "iptables-nft-save", "echo 'CHAIN_DEL failed (Device or resource busy)' >&2; exit 4")
    assert "Device or resource busy" in user.fails(4, "remove", "game", env=env)
    assert user.state.exists()
    with host.entered():
        assert "table inet swapper" not in support.listing()
    assert user.does("remove", "game")
    assert not user.state.exists()
    with host.entered():
        assert "swapper" not in support.listing().lower()


def test_status_loads_little(user: User) -> None:
    user.does("apply")
    code = "import sys; sys.argv = sys.argv[1:]; from swapper.cli import main; main()"
    argv = [sys.executable, "-X", "importtime", "-c", code, "swapper", "status", "--config", str(user.config)]
    imported = {line.rpartition("|")[2].strip() for line in user.host.run(argv).stderr.splitlines()}
    assert "swapper.dataplane.zones_nft" in imported
    roots = {name.partition(".")[0] for name in imported}
    assert roots.isdisjoint({"scapy", "docker", "pyroute2", "numpy", "rich", "iptc"})


def test_python_iptables_is_loaded_without_a_compiler_and_without_setuptools(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, Engine.IPTABLES_LEGACY))
    ran = tmp_path / "ran"
    for tool in ("gcc", "cc", "ld"):
        env = shimmed(tmp_path, tool, f"echo {tool} >>{ran}; exit 1")
    code = "import sys; sys.argv = sys.argv[1:]; from swapper.cli import main; main()"
    argv = [sys.executable, "-X", "importtime", "-c", code, "swapper", "apply", "--config", str(user.config)]
    imported = {line.rpartition("|")[2].strip() for line in user.host.run(argv, env=env).stderr.splitlines()}
    assert "iptc.ip4tc" in imported
    assert "setuptools" not in imported
    assert not ran.exists(), ran.read_text()
