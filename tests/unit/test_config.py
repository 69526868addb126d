"""Every kind of mistake in swapper.toml is named: its file, its key, what was found, what is allowed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapper.config import load, parse
from swapper.errors import ConfigError
from swapper.model import DataplaneName, Engine, Flush, Service, UdpMode

FILE = Path("some.toml")
PORT = '{ protocol = "udp", public = 1000, blue = 1001, green = 1002 }'


def write(folder: Path, text: str) -> Path:
    path = folder / "swapper.toml"
    path.write_text(text)
    return path


def game(folder: Path, body: str = "", ports: str = PORT) -> Service:
    return load(write(folder, f"[services.game]\nports = [{ports}]\n{body}")).services["game"]


def port(blue: str, green: str) -> str:
    return f'{{ protocol = "udp", public = 1000, blue = {blue}, green = {green} }}'


def test_what_is_not_said_has_the_documented_default(tmp_path: Path) -> None:
    service = game(tmp_path)
    assert (service.dataplane, service.engine, service.protect) == (DataplaneName.ZONES, None, True)
    assert (service.udp, service.drain_timeout_s, service.idle_timeout_s) == (UdpMode.CUT, 30, 10)
    config = load(tmp_path / "swapper.toml")
    assert (config.state_dir, config.run_dir) == (Path("/var/lib/swapper"), Path("/run/swapper"))


def test_everything_that_can_be_said_is_read(tmp_path: Path) -> None:
    service = game(
        tmp_path,
        'dataplane = "classic"\nengine = "iptables-nft"\nprotect = false\nbackend = { kind = "docker" }\n'
        'release = { source = "registry", image = "example/game" }\n'
        'swap = { udp = "drain", drain_timeout = 2.5, idle_timeout = 1 }\n'
        'classic = { flush = "none", output_chain = false }',
    )
    assert (service.dataplane, service.engine) == (DataplaneName.CLASSIC, Engine.IPTABLES_NFT)
    assert (service.udp, service.drain_timeout_s, service.idle_timeout_s) == (UdpMode.DRAIN, 2.5, 1)
    assert (service.classic.flush, service.classic.output_chain) == (Flush.NONE, False)
    assert (service.protect, service.backend) == (False, "docker")


@pytest.mark.parametrize(
    ("blue", "green", "shown"),
    [
        ('"172.30.0.2:1001"', '"172.30.0.3:1001"', "172.30.0.2:1001"),
        ('"[fd00:30::2]:1001"', '"[fd00:30::3]:1001"', "[fd00:30::2]:1001"),
        (
            '["[fd00:30::2]:1", "172.30.0.2:1"]',
            '["172.30.0.3:1", "[fd00:30::3]:1"]',
            "172.30.0.2:1 + [fd00:30::2]:1",
        ),
    ],
)
def test_a_target_may_be_an_address_behind_a_bridge(tmp_path: Path, blue: str, green: str, shown: str) -> None:
    assert str(game(tmp_path, ports=port(blue, green)).ports[0].blue) == shown


@pytest.mark.parametrize(
    ("body", "ports", "expected"),
    [
        ("speed = 1", PORT, "game.speed: found an unknown key; allowed: dataplane,"),
        ("protct = true", PORT, "game.protct: found an unknown key (did you mean protect?)"),
        ("protect = 1", PORT, "game.protect: found 1; allowed: true or false"),
        (
            'dataplane = "zone"',
            PORT,
            'game.dataplane: found "zone" (did you mean "zones"?); allowed: "zones",',
        ),
        (
            'dataplane = "memory"',
            PORT,
            'game.dataplane: found "memory"; allowed: "zones", "stateless", "classic"',
        ),
        ("engine = true", PORT, 'game.engine: found true; allowed: "nftables"'),
        (
            'dataplane = "stateless"\nengine = "iptables-nft"',
            PORT,
            'game.engine: found "iptables-nft"; allowed: "nftables" with dataplane "stateless"',
        ),
        (
            'dataplane = "classic"\nengine = "nftables"',
            PORT,
            'game.engine: found "nftables"; allowed: "iptables-nft"',
        ),
        (
            'dataplane = "stateless"\nswap = { udp = "drain" }',
            PORT,
            'game.swap.udp: found "drain"; allowed: "cut"',
        ),
        (
            'dataplane = "stateless"',
            port('"172.30.0.2:1"', '"172.30.0.3:1"'),
            'ports[0].blue: found "172.30.0.2:1"; allowed: a port of this host',
        ),
        ("classic = {}", PORT, 'game.classic: found a table, with dataplane "zones"'),
        ("swap = { drain_timeout = 0 }", PORT, "swap.drain_timeout: found 0; allowed: seconds, above 0"),
        ("swap = { idle_timeout = nan }", PORT, "swap.idle_timeout: found nan; allowed: seconds, above 0"),
        ("swap = { idle_timeout = true }", PORT, "swap.idle_timeout: found true; allowed: seconds"),
        ("swap = 3", PORT, "game.swap: found 3; allowed: a table"),
        (
            'backend = { kind = "vm" }',
            PORT,
            'backend.kind: found "vm"; allowed: "external", "process", "docker"',
        ),
        ("", "", "game.ports: found []; allowed: a list of at least one"),
        ("", "7", "game.ports[0]: found 7; allowed: a table"),
        ("", PORT.replace("udp", "sctp"), 'ports[0].protocol: found "sctp"; allowed: "udp", "tcp"'),
        ("", "{ public = 1000, blue = 1001, green = 1002 }", "ports[0].protocol: found nothing; allowed"),
        ("", PORT.replace("1000", "0"), "ports[0].public: found 0; allowed: a port, 1 to 65535"),
        ("", PORT.replace("1000", "0x" + "f" * 9000), "public: found an integer of more than 64 bits"),
        ("", PORT.replace("1000", "65536"), "ports[0].public: found 65536; allowed: a port"),
        ("", PORT.replace("1000", "true"), "ports[0].public: found true; allowed: a port"),
        ("", PORT.replace("1000", '"1000"'), 'ports[0].public: found "1000"; allowed: a port'),
        (
            "",
            PORT.replace("1002", "1001"),
            "ports[0].green: found udp 1001, which is also services.game.ports[0].blue",
        ),
        (
            "",
            port("1001", '"172.30.0.3:1"'),
            "ports[0].green: found an IPv4 address; allowed: a port of this host",
        ),
        (
            "",
            port('"172.30.0.2:1"', '"[fd00::3]:1"'),
            "ports[0].green: found an IPv6 address; allowed: an IPv4",
        ),
        (
            "",
            port('"172.30.0.2:1"', '"172.30.0.2:1"'),
            "ports[0].green: found udp 172.30.0.2:1, which is also",
        ),
        ("", port('"172.30.0.256:1"', '"172.30.0.3:1"'), 'ports[0].blue: found "172.30.0.256:1"; allowed'),
        ("", port('"127.0.0.1:1"', '"172.30.0.3:1"'), 'ports[0].blue: found "127.0.0.1:1"; allowed'),
        ("", port('"fd00::2:1"', '"[fd00::3]:1"'), 'ports[0].blue: found "fd00::2:1"; allowed'),
        ("", port('["172.30.0.2:1", "[fd00::2]:2"]', "1002"), "ports[0].blue: found ["),
        ("", port('["172.30.0.2:1", "172.30.0.3:1"]', "1002"), "ports[0].blue: found ["),
    ],
)
def test_a_mistake_names_file_key_found_and_allowed(tmp_path: Path, body: str, ports: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        game(tmp_path, body, ports)
    lines = str(caught.value).splitlines()
    assert any(expected in line for line in lines), lines
    assert all(line.startswith(f"{tmp_path}/swapper.toml: services.game.") for line in lines)
    assert caught.value.exit_code == 2


def test_all_mistakes_are_listed_at_once(tmp_path: Path) -> None:
    text = f'state_dir = "here"\nrun_dir = 1\nstate = 2\n[services.Game]\nports = [{PORT}]\nprotect = 0\n'
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    keys = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert sorted(keys) == ["run_dir", "services.Game", "services.Game.protect", "state", "state_dir"]


def test_a_port_has_one_role_over_all_services(tmp_path: Path) -> None:
    other = PORT.replace("1000", "2000").replace("1001", "2001").replace("1002", "1000")
    text = f"[services.a]\nports = [{PORT}]\n[services.b]\nports = [{other}]\n"
    with pytest.raises(ConfigError, match=r"services\.b\.ports\[0\]\.green: found udp 1000, which is also"):
        load(write(tmp_path, text))


def test_udp_and_tcp_ports_do_not_clash(tmp_path: Path) -> None:
    assert len(game(tmp_path, ports=f"{PORT}, {PORT.replace('udp', 'tcp')}").ports) == 2


def test_a_syntax_error_names_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"swapper\.toml: not valid TOML: .*line 2, column"):
        load(write(tmp_path, "\n[services\n"))


@pytest.mark.parametrize("content", [b"\xff", b"a = " + b"9" * 5000, b"a = " + b"[" * 100_000])
def test_what_is_not_toml_is_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "swapper.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(tmp_path / "swapper.toml")


def test_a_missing_file_says_how_to_name_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPPER_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file.*--config"):
        load()


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWAPPER_CONFIG", str(write(tmp_path, 'run_dir = "/run/other"')))
    assert load().run_dir == Path("/run/other")


def test_a_thousand_services_load_in_under_200_ms(tmp_path: Path) -> None:
    services = (f"[services.s{i}]\nports = [{port(str(10_000 + i), str(20_000 + i))}]\n" for i in range(1000))
    path = write(tmp_path, "".join(s.replace("= 1000,", f"= {i + 1},") for i, s in enumerate(services)))
    times = []
    for _ in range(5):
        start = time.process_time()
        assert len(load(path).services) == 1000
        times.append(time.process_time() - start)
    assert min(times) < 0.2


KEYS = st.sampled_from(
    [
        "services",
        "game",
        "ports",
        "protocol",
        "public",
        "blue",
        "green",
        "swap",
        "udp",
        "engine",
        "dataplane",
        "classic",
        "flush",
        "backend",
        "kind",
        "state_dir",
        "run_dir",
        "protect",
        "drain_timeout",
    ]
)
SCALARS = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.dates()
    | st.sampled_from(["udp", "zones", "stateless", "drain", "172.30.0.2:1", "[fd00::2]:1", "/x", 1000])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(), inner, max_size=5),
    max_leaves=25,
)
PORTS = st.lists(st.dictionaries(st.sampled_from(["protocol", "public", "blue", "green"]), VALUES) | VALUES, max_size=3)
SERVICES = st.dictionaries(KEYS | st.text(), st.dictionaries(KEYS, VALUES | PORTS, max_size=6) | VALUES, max_size=3)


@given(st.dictionaries(KEYS | st.text(), VALUES, max_size=4), SERVICES)
def test_no_document_raises_anything_but_a_configuration_error(
    top: dict[str, object], services: dict[str, object]
) -> None:
    try:
        parse({**top, "services": services}, FILE)
    except ConfigError as error:
        assert all(line.startswith("some.toml: ") for line in str(error).split("\n"))  # noqa: PT017 - raising is optional
