"""The tables of a deployment: what can be said is read, and every mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapper.config import load, parse
from swapper.errors import ConfigError
from swapper.recipe import Execution, Health, ProbeKind, Recipe, Secret, Serve, Source, SourceKind, Step, Webhook

if TYPE_CHECKING:
    from swapper.model import Service

PORTS = """ports = [
  { protocol = "udp", public = 1000, blue = 1001, green = 1002 },
  { protocol = "tcp", public = 8080, blue = 8081, green = 8082 },
]
"""
BRIDGED = 'ports = [{ protocol = "udp", public = 1000, blue = "172.30.0.2:1001", green = "172.30.0.3:1001" }]\n'
PROCESS = (
    'backend = { kind = "process", command = ["{files}/game"] }\nrelease = { source = "local", path = "/b/{tag}" }\n'
)
DOCKER = 'backend = { kind = "docker" }\nrelease = { source = "registry", image = "example/game" }\n'


def service(folder: Path, body: str, ports: str = PORTS) -> Service:
    path = folder / "swapper.toml"
    path.write_text(f"[services.game]\n{ports}{body}")
    return load(path).services["game"]


def mistakes(folder: Path, body: str, ports: str = PORTS) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        service(folder, body, ports)
    return [line.partition("services.game.")[2] for line in str(caught.value).splitlines()]


def test_everything_that_can_be_said_of_a_container_is_read(tmp_path: Path) -> None:
    recipe = service(
        tmp_path,
        """
        [services.game.backend]
        kind = "docker"
        command = ["--set", "{set}"]
        environment = { PORT = "{udp_1000}" }
        volumes = ["/srv:/data:ro"]
        labels = { team = "blue" }
        capabilities = ["SYS_NICE"]
        network = "host"
        memory = "512m"
        cpus = 1.5
        user = "game"
        stop_signal = "SIGINT"
        stop_grace = 5
        keep_old = true
        [services.game.release]
        source = "registry"
        image = "registry.example:5000/game"
        username = "me"
        password_file = "/run/secrets/password"
        keep = 3
        [services.game.health]
        kind = "udp"
        port = 1000
        send_hex = "00ff"
        pattern = "po+ng"
        start_period = 1
        interval = 0.2
        timeout = 2
        successes = 3
        deadline = 90
        [services.game.deploy]
        bake = 10
        settle = 2
        [services.game.hooks]
        before_launch = ["/bin/true"]
        [services.game.webhook]
        repositories = ["owner/game"]
        tags = ["v*"]
        actions = ["published", "prereleased"]
        """,
    ).recipe
    assert recipe == Recipe(
        Execution(
            command=("--set", "{set}"),
            environment=(("PORT", "{udp_1000}"),),
            volumes=("/srv:/data:ro",),
            labels=(("team", "blue"),),
            capabilities=("SYS_NICE",),
            network="host",
            memory_bytes=512 << 20,
            cpus=1.5,
            user="game",
            stop_signal="SIGINT",
            stop_grace_s=5,
            keep_old=True,
        ),
        Source(
            kind=SourceKind.REGISTRY,
            image="registry.example:5000/game",
            username="me",
            password=Secret(Path("/run/secrets/password")),
            keep=3,
        ),
        Health(
            kind=ProbeKind.UDP,
            public=1000,
            send=b"\0\xff",
            pattern="po+ng",
            start_period_s=1,
            interval_s=0.2,
            timeout_s=2,
            successes=3,
            deadline_s=90,
        ),
        Webhook(("owner/game",), ("v*",), ("published", "prereleased")),
        bake_s=10,
        settle_s=2,
        hooks=(("before_launch", ("/bin/true",)),),
    )
    assert recipe.hook("before", Step.LAUNCH) == ("/bin/true",)
    assert recipe.hook("after", Step.LAUNCH) == ()


def test_a_github_release_and_the_server_are_read(tmp_path: Path) -> None:
    (tmp_path / "swapper.toml").write_text(
        f'[serve]\nlisten = "[::1]:9001"\nsecret_env = "SECRET"\nbody_limit = "64k"\n[services.game]\n{PORTS}'
        'backend = { kind = "process", command = ["{files}/game"] }\n'
        'release = { source = "github", repository = "o/n", asset = "g-{tag}", token_env = "TOKEN", '
        'api = "http://h:8/" }\n'
        'health = { kind = "http", port = 8080, path = "/ok", status = 204, expect = "fine" }'
    )
    config = load(tmp_path / "swapper.toml")
    assert config.serve == Serve("::1", 9001, Secret(env="SECRET"), 64 << 10)
    source, health = config.services["game"].recipe.source, config.services["game"].recipe.health
    assert (source.api, source.asset, source.token) == ("http://h:8", "g-{tag}", Secret(env="TOKEN"))
    assert (health.kind, health.public, health.path, health.status, health.expect) == (
        "http",
        8080,
        "/ok",
        204,
        b"fine",
    )


def test_what_is_not_said_has_its_default(tmp_path: Path) -> None:
    recipe = service(tmp_path, PROCESS).recipe
    default = Recipe()
    assert (recipe.health, recipe.webhook, recipe.hooks) == (default.health, None, ())
    assert (recipe.bake_s, recipe.settle_s) == (0, 1)
    assert (recipe.source.keep, recipe.execution.stop_grace_s, recipe.execution.keep_old) == (5, 10, False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('backend = { kind = "process" }', "backend.command: found nothing"),
        ('backend = { kind = "process", command = ["x"] }', "release: found nothing"),
        ('release = { source = "local", path = "/x" }', "release: found a table, with backend.kind external"),
        ('health = { kind = "tcp" }', "health: found a table, with backend.kind external"),
        ('backend = { kind = "external", command = ["x"] }', "backend.command: found an unknown key"),
        (
            PROCESS.replace("{files}", "{file}"),
            "backend.command: found the template {file}; allowed: {service}, {set},",
        ),
        (PROCESS.replace('"process"', '"process", network = "x"'), "backend.network: found an unknown key"),
        (PROCESS.replace('"process"', '"process", stop_signal = "SIGKILL"'), 'backend.stop_signal: found "SIGKILL"'),
        (PROCESS.replace('"process"', '"process", stop_grace = 0'), "backend.stop_grace: found 0"),
        (PROCESS.replace("local", "registry"), 'release.source: found "registry"; allowed: "local", "github"'),
        (PROCESS.replace("/b/{tag}", "b"), 'release.path: found "b"; allowed: an absolute path'),
        (PROCESS.replace('path = "/b/{tag}"', "keep = 1"), "release.keep: found 1; allowed: an integer, 2 to 1000"),
        (DOCKER.replace('"docker"', '"docker", memory = "much"'), 'backend.memory: found "much"'),
        (DOCKER.replace('"docker"', '"docker", cpus = 0'), "backend.cpus: found 0"),
        (DOCKER.replace('"docker"', '"docker", network = "game"'), 'backend.network: found "game"; allowed: "host"'),
        (DOCKER.replace('"docker"', '"docker", labels = { a = 1 }'), "backend.labels.a: found 1"),
        (DOCKER.replace("example/game", "Example Game"), 'release.image: found "Example Game"'),
        (DOCKER.replace('game" }', 'game", password_file = "/a", password_env = "B" }'), "release.password_env"),
        (PROCESS + 'health = { kind = "docker" }', 'health.kind: found "docker"'),
        (PROCESS + 'health = { kind = "udp", port = 8080 }', "health.port: found 8080; allowed: a public udp port"),
        (PROCESS + 'health = { kind = "udp", pattern = "(" }', "health.pattern"),
        (
            PROCESS + 'health = { kind = "udp", send = "a", send_hex = "00" }',
            'health.send_hex: found "00"; allowed: this, or',
        ),
        (PROCESS + 'health = { kind = "udp", send_hex = "0" }', "health.send_hex"),
        (PROCESS + 'health = { kind = "command" }', "health.command: found nothing"),
        (PROCESS + 'health = { kind = "tcp", path = "/" }', "health.path: found an unknown key"),
        (PROCESS + "health = { successes = 0 }", "health.successes: found 0"),
        (PROCESS + "deploy = { bake = -1 }", "deploy.bake: found -1; allowed: seconds, 0 or more"),
        (
            PROCESS + 'hooks = { before_swp = ["x"] }',
            "hooks.before_swp: found an unknown key (did you mean before_swap?)",
        ),
        (PROCESS + 'hooks = { before_swap = "x" }', 'hooks.before_swap: found "x"; allowed: a list'),
        (PROCESS + "webhook = {}", "webhook.repositories: found nothing"),
        (PROCESS + 'webhook = { repositories = ["x"] }', 'webhook.repositories: found "x"; allowed: "owner/name"'),
    ],
)
def test_every_mistake_names_its_key_what_was_found_and_what_is_allowed(
    tmp_path: Path, body: str, expected: str
) -> None:
    assert any(line.startswith(expected) for line in mistakes(tmp_path, body)), mistakes(tmp_path, body)


def test_addresses_need_the_network_that_they_belong_to(tmp_path: Path) -> None:
    assert any('network: found "host"' in line for line in mistakes(tmp_path, DOCKER, BRIDGED))
    assert mistakes(tmp_path, PROCESS, BRIDGED)[0].startswith('backend.kind: found "process"')


@pytest.mark.parametrize("listen", ["9000", "127.0.0.1", "127.0.0.1:99999", ":9000"])
def test_a_wrong_address_of_the_server_is_named(tmp_path: Path, listen: str) -> None:
    (tmp_path / "swapper.toml").write_text(f'[serve]\nlisten = "{listen}"\n[services.game]\n{PORTS}')
    with pytest.raises(ConfigError, match=r"serve\.listen: found"):
        load(tmp_path / "swapper.toml")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
TABLES = ("backend", "release", "health", "deploy", "hooks", "webhook")
BACKEND_KEYS = ("kind", "command", "environment", "memory", "cpus", "network")
RELEASE_KEYS = ("source", "path", "image", "asset", "keep", "token_file")
OTHER_KEYS = ("port", "send", "expect_hex", "pattern", "interval", "bake", "before_swap", "repositories", "tags")
KEYS = st.sampled_from((*BACKEND_KEYS, *RELEASE_KEYS, *OTHER_KEYS))


@given(
    st.fixed_dictionaries({}, optional={name: st.dictionaries(KEYS, VALUES, max_size=5) | VALUES for name in TABLES})
)
def test_no_value_whatever_ends_in_anything_but_a_list_of_mistakes(tables: dict[str, object]) -> None:
    ports = [{"protocol": "udp", "public": 1000, "blue": 1001, "green": 1002}]
    try:
        parse({"services": {"game": {"ports": ports, **tables}}}, Path("some.toml"))
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        lines = []
    assert all("; allowed: " in line for line in lines)
