"""Hosts that lack something: what cannot work is named, and rules that outlived their tool are never passed over."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from harness.netns import build
from swapper.dataplane import open_dataplane
from swapper.model import DataplaneName, Engine, PortSet
from tests import support
from tests.host.test_commands import IPT, NFT, ZONES, User, shimmed, without, without_tools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.netns import Namespace

pytestmark = pytest.mark.root

LEGACY = Engine.IPTABLES_LEGACY
NF_TABLES, IP_SET = 10, 6  # nfnetlink's subsystems
NO_TOOLS = "mount -t tmpfs none /usr/sbin"
every_iptables = pytest.mark.parametrize("engine", [IPT, LEGACY])


@pytest.fixture
def host() -> Iterator[Namespace]:
    with build(support.LONELY) as net:
        yield net["host"]


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("lacking") / "kernel_without.so"
    source = Path(__file__).with_name("kernel_without.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


def kernel_without(what: int | str, lacking: Path) -> dict[str, str]:
    """The environment in which the kernel seems to lack a subsystem, by number, or an nftables expression, by name."""
    return {**os.environ, "LD_PRELOAD": str(lacking), "KERNEL_WITHOUT": str(what)}


def swappers_rules(host: Namespace) -> bool:
    with host.entered():
        return "swapper" in support.listing().lower()


def test_without_nf_tables_in_the_kernel_the_best_engine_is_the_legacy_one(
    host: Namespace, tmp_path: Path, lacking: Path
) -> None:
    user, env = User(host, support.configuration(tmp_path, ZONES, None)), kernel_without(NF_TABLES, lacking)
    for words in ("apply", "swap game", "status"):
        done = user.types(*words.split(), env=env)
        assert done.returncode == 0, done.stderr
    assert "game: green, generation 2, zones on iptables-legacy" in done.stdout
    assert "not in sync" not in done.stdout
    assert user.types("remove", "game", env=env).returncode == 0
    assert not swappers_rules(host)
    assert not user.state.exists()


@pytest.mark.parametrize("engine", [NFT, IPT])
def test_without_nf_tables_in_the_kernel_its_engines_are_missing(
    host: Namespace, tmp_path: Path, lacking: Path, engine: Engine
) -> None:
    user, env = User(host, support.configuration(tmp_path, ZONES, engine)), kernel_without(NF_TABLES, lacking)
    assert "modprobe nf_tables" in user.fails(6, "apply", env=env)
    assert not user.state.exists()


@pytest.mark.parametrize(("name", "expression"), [(ZONES, "fib"), (ZONES, "nat"), (DataplaneName.STATELESS, "notrack")])
def test_rules_that_the_kernel_does_not_take_are_missing(
    host: Namespace, tmp_path: Path, lacking: Path, name: DataplaneName, expression: str
) -> None:
    user, env = User(host, support.configuration(tmp_path, name, NFT)), kernel_without(expression, lacking)
    said = user.fails(6, "apply", env=env)
    assert f"{os.uname().release}, lacks something that the rules need; load it: modprobe -a nft_ct " in said
    assert not user.state.exists()
    assert not swappers_rules(host)


def test_where_the_kernel_does_not_take_the_rules_of_one_engine_the_next_is_the_best(
    host: Namespace, tmp_path: Path, lacking: Path
) -> None:
    user, env = User(host, support.configuration(tmp_path, ZONES, None)), kernel_without("fib", lacking)
    for words in ("apply", "swap game", "status"):
        done = user.types(*words.split(), env=env)
        assert done.returncode == 0, done.stderr
    assert "game: green, generation 2, zones on iptables-nft" in done.stdout
    assert "not in sync" not in done.stdout


def test_the_best_engine_is_found_without_a_change(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, None))
    assert (user.service()["engine"], swappers_rules(host)) == (NFT, False)
    user.does("apply")
    user.does("swap", "game")
    assert user.service()["in_sync"] is True


def test_what_iptables_says_without_nf_tables_is_a_lack_and_no_refusal(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT))
    words = "iptables-nft-save v1.8.9 (nf_tables): Could not fetch rule set generation id: Invalid argument"
    env = shimmed(tmp_path, "iptables-nft-save", f"echo '{words}' >&2; exit 4")
    assert words in user.fails(6, "apply", env=env)


@every_iptables
def test_a_service_that_never_drains_needs_no_ip_set(
    host: Namespace, tmp_path: Path, lacking: Path, engine: Engine
) -> None:
    user, env = User(host, support.configuration(tmp_path, ZONES, engine)), kernel_without(IP_SET, lacking)
    for words in ("apply", "swap game", "status", "remove game"):
        done = user.types(*words.split(), env=env)
        assert done.returncode == 0, done.stderr
    assert not swappers_rules(host)


@every_iptables
def test_a_drain_without_ip_set_says_what_to_load_and_moves_nothing(
    host: Namespace, tmp_path: Path, lacking: Path, engine: Engine
) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine, drain=True))
    user.does("apply")
    assert "modprobe -a ip_set " in user.fails(6, "swap", "game", env=kernel_without(IP_SET, lacking))
    service = user.service()
    assert (service["in_sync"], service["kernel"]["active"], service["generation"]) == (True, "blue", 1)


def test_without_python_iptables_the_legacy_engine_is_read_and_not_passed_over(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, LEGACY))
    user.does("apply")
    assert without(user, "iptc", "status").returncode == 0
    done = without(user, "iptc", "remove", "game")
    assert done.returncode == 6, done.stderr
    assert "pip install '.[legacy]'" in done.stderr
    assert user.state.exists()
    assert user.service()["in_sync"] is True
    assert without(User(host, support.configuration(tmp_path, ZONES, NFT)), "iptc", "remove", "other").returncode == 2


@every_iptables
def test_rules_whose_tool_is_gone_are_not_passed_over(host: Namespace, tmp_path: Path, engine: Engine) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, engine))
    user.does("apply")
    done = without_tools(user, NO_TOOLS, "remove", "game")
    assert done.returncode == 6, done.stderr
    assert "apt-get install -y iptables" in done.stderr
    assert user.state.read_text() == "game blue 1\n"
    assert user.service()["in_sync"] is True


def test_nftables_rules_whose_library_is_gone_are_not_passed_over(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, NFT))
    user.does("apply")
    done = without(user, "libnftables", "remove", "game")
    assert done.returncode == 6, done.stderr
    assert "apt-get install -y libnftables1" in done.stderr
    assert user.service()["in_sync"] is True


def test_tools_that_are_not_needed_are_not_missed(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, NFT))
    for words in ("apply", "swap game", "remove game"):
        done = without_tools(user, NO_TOOLS, *words.split())
        assert done.returncode == 0, done.stderr
    assert not swappers_rules(host)


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("iptables-nft-save", "Fatal: can't open lock file: Permission denied (you must be root)"),
        ("iptables-nft-restore", "iptables-nft-restore: line 3 failed: No chain/target/match by that name."),
    ],
    ids=["not permitted", "found but not committed"],
)
def test_what_holds_rules_is_not_passed_over(host: Namespace, tmp_path: Path, tool: str, words: str) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT))
    user.does("apply")
    env = shimmed(tmp_path, tool, f'cat >/dev/null; echo "{words}" >&2; exit 4')
    user.fails(6, "remove", "game", env=env)
    assert user.state.exists()
    assert user.service()["in_sync"] is True


def test_old_rules_that_cannot_be_removed_are_named_and_the_service_is_carried(host: Namespace, tmp_path: Path) -> None:
    User(host, support.configuration(tmp_path, ZONES, LEGACY)).does("apply")
    with host.entered():
        open_dataplane(DataplaneName.STATELESS, NFT).install(support.game(DataplaneName.STATELESS, NFT), PortSet.BLUE)
    user = User(host, support.configuration(tmp_path, ZONES, NFT))
    done = without(user, "iptc", "apply")
    assert done.returncode == 1, done.stderr
    said = "game: carried by zones on nftables now, but old rules remain of zones on iptables-legacy: "
    assert said in done.stderr
    assert user.service()["in_sync"] is True
    with host.entered():
        assert not open_dataplane(DataplaneName.STATELESS, NFT).uninstall("game")
    assert said in without(user, "iptc", "swap", "game").stderr
    assert user.service()["kernel"]["active"] == "blue"
    user.does("apply")
    with host.entered():
        assert not open_dataplane(ZONES, LEGACY).uninstall("game")


def test_a_first_apply_that_is_refused_leaves_nothing_meant(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT))
    env = shimmed(tmp_path, "iptables-nft-restore", "cat >/dev/null; echo 'line 4: RULE_APPEND failed' >&2; exit 4")
    assert "RULE_APPEND failed" in user.fails(4, "apply", env=env)
    assert not user.state.exists()
    assert not swappers_rules(host)


def test_a_first_apply_of_which_the_kernel_took_half_stays_meant(host: Namespace, tmp_path: Path) -> None:
    user = User(host, support.configuration(tmp_path, ZONES, IPT))
    env = shimmed(tmp_path, "ip6tables-nft-restore", "cat >/dev/null; echo 'line 4: RULE_APPEND failed' >&2; exit 4")
    assert "RULE_APPEND failed" in user.fails(4, "apply", env=env)
    assert user.state.read_text() == "game blue 1\n"
    user.does("apply")
    assert user.service()["in_sync"] is True
