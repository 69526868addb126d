"""The examples are what they say: every key is shown, with its default, and each of them really works."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from harness.netns import build
from harness.topology import OUTSIDE_AND_HOST
from swapper import config
from swapper.errors import ConfigError
from tests.deploy.deployed import Deployed, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harness.netns import Net

EXAMPLES = Path(__file__).parents[2] / "examples"
FULL = ("external", "process", "docker-host", "docker-bridge")
HOST = "192.0.2.1"
A_DEFAULT = re.compile(r"^#(?=[a-z_]+ = )(?!.*no default)", re.MULTILINE)
A_TABLE = re.compile(r"^\[.*$", re.MULTILINE)


def parsed(text: str) -> config.Config:
    return config.parse(tomllib.loads(text), Path("swapper.toml"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.toml")), ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_configuration_is_valid(path: Path) -> None:
    assert parsed(path.read_text()).services


@pytest.mark.parametrize("name", FULL)
def test_what_is_shown_as_a_default_is_the_default(name: str) -> None:
    text = (EXAMPLES / f"{name}.toml").read_text()
    spelled_out, count = A_DEFAULT.subn("", text)
    assert count >= 7
    assert parsed(spelled_out) == parsed(text)


@pytest.mark.parametrize("name", FULL)
def test_what_has_no_default_is_shown_with_a_valid_value(name: str) -> None:
    text = re.sub(r"^#(?=[a-z_]+ = )", "", (EXAMPLES / f"{name}.toml").read_text(), flags=re.MULTILINE)
    assert parsed(text).services


@pytest.mark.parametrize("name", FULL)
def test_every_key_is_shown(name: str) -> None:
    """A key that nobody knows makes the configuration list those that there are."""
    text = (EXAMPLES / f"{name}.toml").read_text()
    with pytest.raises(ConfigError) as found:
        parsed("nothing = 0\n" + A_TABLE.sub(r"\g<0>\nnothing = 0", text))
    lists = re.findall(r"(\S*?)\.?nothing: found an unknown key.*?; allowed: (.*)", str(found.value))
    assert len(lists) >= 4
    for table, keys in lists:
        for key in keys.split(", "):
            assert re.search(rf"\b{key}\b", text), f"{table}{key} is not shown"


@pytest.mark.parametrize("kind", ["listen", "udp", "tcp", "http", "docker", "command"])
def test_every_kind_of_health_is_shown(kind: str) -> None:
    assert any(f'kind = "{kind}"' in (EXAMPLES / f"{name}.toml").read_text() for name in FULL)


def test_a_release_is_published_when_all_of_it_is_there() -> None:
    """Publishing fires the webhook. The asset's name is the one that process.toml asks for."""
    text = (EXAMPLES / "release.yml").read_text()
    steps = ["make test", "gh release create", "--draft --target", "gh release upload", "docker push", "--draft=false"]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    asset = parsed((EXAMPLES / "process.toml").read_text()).services["game"].recipe.source.asset
    assert f'"{asset.replace("{tag}", "$TAG")}" "{asset.replace("{tag}", "$TAG")}.sha256"' in text


def test_the_shell_lines_of_the_workflow_parse() -> None:
    text = (EXAMPLES / "release.yml").read_text()
    scripts = re.findall(r"^ +run: (?:\|\n((?: {10}.*\n)+)|(.*)$)", text, re.MULTILINE)
    assert len(scripts) == text.count("run: ")
    for block, line in scripts:
        done = subprocess.run(["bash", "-n"], input=block or line, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


class Example(Deployed):
    """An example's own configuration on a host, with its folders elsewhere and no change but that."""

    def __init__(self, net: Net, folder: Path, text: str) -> None:
        self.text = text
        (self.name,) = parsed(text).services
        super().__init__(net, folder, Path())

    def configure(self, **_: Any) -> None:
        """Its own text, with the folders of this test."""
        text = re.sub(r"/srv/[a-z-]+/", f"{self.folder}/builds/", self.text)
        self.config.write_text(f'state_dir = "{self.state}"\nrun_dir = "{self.folder}/run"\n{text}')

    def ships(self, tag: str, file: Path) -> None:
        """Make a release of one file, which knows its tag."""
        where = self.folder / "builds" / tag
        where.mkdir()
        (where / file.name).write_text(file.read_text().replace("TAG", tag))

    def clean(self) -> None:
        """End what runs."""
        for port_set in ("blue", "green"):
            record = self.state / "services" / self.name / "backends" / f"{port_set}.json"
            if record.exists():
                pid = int(re.findall(r'"pid": (\d+)', record.read_text())[0])
                with ExitStack() as gone:
                    gone.push(lambda kind, *_: kind is ProcessLookupError)
                    os.killpg(pid, 9)


@contextmanager
def placed(text: str) -> Iterator[Example]:
    with build(OUTSIDE_AND_HOST) as net, tempfile.TemporaryDirectory(prefix="swapper-", dir="/dev/shm") as name:
        Path(name).chmod(0o755)  # the examples' backends are not root
        example = Example(net, Path(name), text)
        try:
            yield example
        finally:
            example.clean()


class Asker:
    """Asks again and again in a thread of its own, from `asks` on; what it found missing is in `faults`."""

    def __init__(self, ask: Callable[[int], str]) -> None:
        self.faults: list[str] = []
        self.asked = 0
        self.releases: list[str] = []
        self._ask = ask
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until("the first answers", lambda: self.asked > 10)
        return self

    def __exit__(self, *_: object) -> None:
        asked = self.asked
        wait_until("the last answers", lambda: self.asked > asked + 10)
        self._over.set()
        self._thread.join(timeout=10)

    def _work(self) -> None:
        while not self._over.wait(0.005):
            try:
                release = self._ask(self.asked)
            except OSError as error:
                self.faults.append(f"{self.asked}: {error!r}")
            else:
                if release not in self.releases:
                    self.releases.append(release)
            self.asked += 1


class Player:
    """A client of the game server: sends inputs for as long as it plays, and hears what it is pushed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent = 0
        self.applied: list[int] = []
        self.by: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._play, self._hear)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_until("the first snapshots", lambda: len(self.applied) > 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._threads[0].join(timeout=10)
        wait_until("the last snapshots", lambda: len(self.applied) >= self.sent or not self._threads[1].is_alive())
        self.sock.close()
        self._threads[1].join(timeout=10)

    def _play(self) -> None:
        while not self._over.wait(0.004):
            self.sock.send(f"input {self.sent}".encode())
            self.sent += 1

    def _hear(self) -> None:
        while True:
            try:
                _, release, _, *inputs = self.sock.recv(65_536).split()
            except OSError:
                return
            self.applied += map(int, inputs)
            if inputs and release.decode() not in self.by:
                self.by.append(release.decode())


def connected(example: Example, node: str, address: str, port: int) -> socket.socket:
    """A client's socket in a node; it stays there."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with example.net[node].entered():
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(2)
    sock.connect((address, port))
    return sock


CLIENTS = (("outside", HOST), ("outside", "2001:db8:1::1"), ("host", HOST), ("host", "127.0.0.1"), ("host", "::1"))


@pytest.mark.deploys
def test_players_of_the_game_server_lose_no_input_across_deployments() -> None:
    folder = EXAMPLES / "game-server"
    with placed((folder / "swapper.toml").read_text()) as example:
        for tag in ("v1", "v2", "v3"):
            example.ships(tag, folder / "server.py")
        example.does("deploy", "game", "v1")
        players = [Player(connected(example, node, address, 7777)) for node, address in CLIENTS]
        with ExitStack() as game:
            for player in players:
                game.enter_context(player)
            for tag in ("v2", "v3"):
                receipt = example.does("deploy", "game", tag)
                assert (receipt["result"], receipt["release"]) == ("done", tag)
    for player in players:
        assert player.by == ["v1", "v2", "v3"]
        assert player.sent > 1000
        assert sorted(player.applied) == list(
            range(player.sent)
        )  # the last of the old one may cross the first of the new


def question(name: str, number: int) -> bytes:
    """A query for a TXT record, as it goes over the wire (RFC 1035)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return number.to_bytes(2, "big") + bytes.fromhex("01000001000000000000") + labels + bytes.fromhex("0000100001")


def version(answer: bytes, number: int) -> str:
    """The text of the one answer."""
    if answer[:2] != number.to_bytes(2, "big") or answer[6:8] != b"\0\1":
        raise OSError(f"a wrong answer: {answer!r}")
    return answer.rpartition(bytes.fromhex("c00c00100001"))[2][7:].decode()


@pytest.mark.deploys
@pytest.mark.skipif(not shutil.which("dnsmasq"), reason="dnsmasq is missing; bring it with: apt install dnsmasq-base")
def test_the_dns_server_answers_every_query_across_deployments() -> None:
    folder = EXAMPLES / "dns"
    probe = parsed((folder / "swapper.toml").read_text()).services["dns"].recipe.health
    assert probe.send == question("health.example.test", 1)
    text = (folder / "swapper.toml").read_text().replace("/usr/sbin/dnsmasq", str(shutil.which("dnsmasq")))
    with placed(text) as example:
        for tag in ("v1", "v2", "v3"):
            example.ships(tag, folder / "dnsmasq.conf")
        example.does("deploy", "dns", "v1")

        def ask(sock: socket.socket) -> Callable[[int], str]:
            def one(number: int) -> str:
                sock.send(question("version.example.test", number % 65_536))
                return version(sock.recv(2048), number % 65_536)

            return one

        socks = [connected(example, node, address, 53) for node, address in CLIENTS]
        askers = [Asker(ask(sock)) for sock in socks]
        with ExitStack() as asking:
            for asker in askers:
                asking.enter_context(asker)
            for tag in ("v2", "v3"):
                assert example.does("deploy", "dns", tag)["result"] == "done"
        with example.net["outside"].entered(), socket.create_connection((HOST, 53), timeout=2) as tcp:
            asked = question("version.example.test", 7)
            tcp.sendall(len(asked).to_bytes(2, "big") + asked)
            assert version(tcp.recv(2048)[2:], 7) == "v3"
        for sock in socks:
            sock.close()
        spoiled = (folder / "dnsmasq.conf").read_text().replace("serving", "nothing")
        (example.folder / "builds/bad").mkdir()
        (example.folder / "builds/bad/dnsmasq.conf").write_text(spoiled)
        impatient = example.config.read_text().replace("[services.dns.health]", "[services.dns.health]\ndeadline = 1")
        example.config.write_text(impatient)
        assert example.types("deploy", "dns", "bad").returncode == 3
    for asker in askers:
        assert (asker.faults, asker.releases) == ([], ["v1", "v2", "v3"])
        assert asker.asked > 200


NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
has_nginx = pytest.mark.skipif(not NGINX, reason="nginx is missing; bring it with: apt install nginx-light")


def in_folder(folder: Path, text: str) -> list[str]:
    """The command line of nginx for that configuration, with what it writes in a folder."""
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(text.replace("http {", f"http {{ {paths}"))
    return [str(NGINX), "-e", "stderr", "-c", str(path), "-g", f"daemon off; pid {folder}/pid;"]


@has_nginx
@pytest.mark.root
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_nginx_accepts_its_configuration(tmp_path: Path, tls: bool) -> None:
    text = (EXAMPLES / "nginx/nginx.conf").read_text()
    if tls:
        key, certificate = tmp_path / "key.pem", tmp_path / "fullchain.pem"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=example.test"),
                *("-keyout", str(key), "-out", str(certificate)),
            ],
            check=True,
            capture_output=True,
        )
        plain = re.sub(r"^ +listen .*;\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"#(listen|ssl_)", r"\1", plain).replace("/etc/ssl/example", str(tmp_path))
        assert (text.count(" ssl;"), text.count(str(tmp_path))) == (2, 2)
    done = subprocess.run([*in_folder(tmp_path, text), "-t"], capture_output=True, text=True, check=False)
    assert (done.returncode, "test is successful" in done.stderr) == (0, True), done.stderr


WEB = """
[services.web]
ports = [{ protocol = "tcp", public = 8000, blue = 8001, green = 8002 }]
[services.web.backend]
kind = "process"
command = ["/usr/bin/python3", "-m", "http.server", "{tcp_8000}"]
[services.web.release]
source = "local"
path = "/srv/web/{tag}"
[services.web.health]
kind = "http"
path = "/index.html"
"""


@has_nginx
@pytest.mark.deploys
def test_nginx_in_front_serves_every_request_across_deployments() -> None:
    with placed(WEB) as example, ExitStack() as undo:
        page = example.folder / "index.html"
        page.write_text("TAG")
        for tag in ("v1", "v2", "v3"):
            example.ships(tag, page)
        example.does("deploy", "web", "v1")
        command = in_folder(example.folder, (EXAMPLES / "nginx/nginx.conf").read_text())
        nginx = example.host.popen(command, stderr=subprocess.DEVNULL)
        undo.callback(nginx.wait, timeout=10)
        undo.callback(nginx.terminate)

        wait_until("nginx", lambda: example.host.run(["ss", "-Htln", "sport = 8080"]).stdout)

        def answer(request: bytes) -> bytes:
            with example.net["outside"].entered(), socket.create_connection((HOST, 8080), timeout=5) as sock:
                sock.sendall(request)
                said = sock.recv(65_536)
                while said.startswith(b"HTTP/1.1 200") and (more := sock.recv(65_536)):
                    said += more
                return said

        def ask(_: int) -> str:
            said = answer(b"GET /index.html HTTP/1.0\r\n\r\n")
            if b" 200 " not in said.split(b"\r\n")[0]:
                raise OSError(str(said[:100]))
            return said.rpartition(b"\r\n\r\n")[2].decode()

        with Asker(ask) as asker:
            for tag in ("v2", "v3"):
                assert example.does("deploy", "web", tag)["result"] == "done"
        assert (asker.faults, asker.releases) == ([], ["v1", "v2", "v3"])
        assert b" 403 " in answer(b"GET /hook HTTP/1.0\r\n\r\n")
        assert b" 413 " in answer(b"POST /hook HTTP/1.0\r\nContent-Length: 2000000\r\n\r\n")
        assert b" 502 " in answer(b"POST /hook HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")  # nobody serves it here
