"""The gate gates: a product that was broken on purpose does not pass, for the right reason; as it is, it does."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import swapper
from bench.gate import budget
from bench.gate.trial import KNOWN

pytestmark = pytest.mark.bench

BENCH = Path(sys.executable).with_name("swapper-bench")
PRODUCT = Path(str(swapper.__file__)).parent
ZONES = "dataplane/zones_nft.py"
LOSE_NOTHING = "zones on nftables lose nothing"
ADMITTED = "    iif lo accept\n    udp dport @served fib daddr type local goto to_public\n"
CLOSED = "{PROTECT_RULES}\n"


def altered(folder: Path, file: str, before: str, after: str) -> Path:
    """A copy of the product with a text of one of its files replaced."""
    shutil.copytree(PRODUCT, folder / "swapper", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    path = folder / "swapper" / file
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    return folder


def gated(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BENCH, "gate", *words], cwd=folder, capture_output=True, text=True, check=False)


def losses(product: Path) -> tuple[int, dict[str, int]]:
    """How many datagrams zones were sent from all sides, and what the gate says became of those that they lost.

    It has to fail for that, and say how to see it again.
    """
    done = gated(product, "--product", ".", "--limit", LOSE_NOTHING)
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.match(rf"fail +{LOSE_NOTHING}: lost (\d+) of (\d+) \((.*)\), (\d+) too many\n", done.stdout)
    assert found, done.stdout
    assert found[1] == found[4]
    assert f"see it again: swapper-bench gate --product {product} --limit '{LOSE_NOTHING}'" in done.stdout
    return int(found[2]), {fate: int(count) for count, fate in (part.split() for part in found[3].split(", "))}


def test_the_product_as_it_is_loses_nothing_that_it_may_not(tmp_path: Path) -> None:
    names = [limit.name for limit in budget.load(budget.SHIPPED, KNOWN) if limit.swap]
    done = gated(tmp_path, *(word for name in names for word in ("--limit", name)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(": ")[0].removeprefix("pass").strip() for line in done.stdout.splitlines()] == names
    assert re.search(rf"{LOSE_NOTHING}: lost 0 of \d{{5}}, below \d\.\de-04 at 95 %", done.stdout)


def test_a_flush_after_the_swap_loses_the_replies_in_flight(tmp_path: Path) -> None:
    flushed = "moved_ms = plane.apply(swap); __import__('swapper.flows').flows.flush(); return moved_ms"
    _, lost = losses(altered(tmp_path, "operations.py", "return plane.apply(swap)", flushed))
    assert lost.keys() <= {"lost_down", "misaddressed"}
    assert 96 <= sum(lost.values()) <= 180  # three sides x rate x service time = 120


def test_closing_the_internal_ports_before_the_host_is_let_in_loses_its_own_datagrams(tmp_path: Path) -> None:
    sent, lost = losses(altered(tmp_path, ZONES, ADMITTED + CLOSED, CLOSED + ADMITTED))
    assert lost == {"lost_up": sent * 2 // 3}


def test_elements_that_are_not_moved_in_one_transaction_leave_a_gap(tmp_path: Path) -> None:
    apart = "[(self._run(f'{line}\\n'), time.sleep(0.05)) for line in (ending + text).splitlines()]"
    _, lost = losses(altered(tmp_path, ZONES, "self._run(ending + text)", apart))
    assert lost.keys() == {"lost_up"}
    assert sum(lost.values()) >= 250  # three sides x rate x 0.05 s = 300


def test_without_rules_in_output_nobody_inside_the_host_is_served(tmp_path: Path) -> None:
    output = "    type nat hook output priority -100; policy accept;\n"
    sent, lost = losses(altered(tmp_path, ZONES, f"{output}    jump translate\n", output))
    assert lost == {"lost_up": sent * 2 // 3}


def test_a_swap_that_fails_proves_nothing(tmp_path: Path) -> None:
    failing = altered(tmp_path, "operations.py", "return plane.apply(swap)", "raise SwapperError('broken on purpose')")
    done = gated(tmp_path, "--product", str(failing), "--limit", LOSE_NOTHING)
    assert done.returncode == 3, done.stdout + done.stderr
    assert re.match(rf"inconclusive +{LOSE_NOTHING}: .*swapper swap game .*: .*broken on purpose", done.stdout)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose only revision holds the product as it is; the gate's caller is in it."""
    shutil.copytree(PRODUCT, tmp_path / "swapper", ignore=shutil.ignore_patterns("__pycache__"))
    committed(tmp_path)
    return tmp_path


def committed(checkout: Path) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "More"]):
        subprocess.run(["git", *words], cwd=checkout, check=True)


def worktrees(checkout: Path) -> list[Path]:
    """Those beside the checkout itself."""
    done = subprocess.run(
        ["git", "worktree", "list", "--porcelain"], cwd=checkout, capture_output=True, text=True, check=True
    )
    return [Path(path) for path in re.findall(r"^worktree (.*)$", done.stdout, re.MULTILINE)][1:]


def test_rules_that_take_time_are_slower_than_the_direct_path_and_than_the_base(checkout: Path) -> None:
    slow = altered(checkout, ZONES, ADMITTED, "    udp dport 9 accept\n" * 1000 + ADMITTED)
    limits = ("zones cost at most a quarter", "zones are no slower than the base")
    chosen = [word for name in limits for word in ("--limit", name)]
    done = gated(checkout, "--base", "HEAD", "--product", str(slow), "--seconds", "1", *chosen, "--markdown", "t.md")
    assert done.returncode == 1, done.stdout + done.stderr
    once = r"([\d.]+) times \(([\d.]+) - [\d.]+, n = \d+\), limit ([\d.]+): [\d.]+ too much at least"
    for name in limits:
        found = re.search(rf"^fail +{name}: {once}.*; measured before: {once}", done.stdout, re.MULTILINE)
        assert found, done.stdout
        assert float(found[2]) > float(found[3])
        assert float(found[5]) > float(found[6])
    assert "; the base: 1." in done.stdout
    again = f"swapper-bench gate --base HEAD --product {slow} --seconds 1.0 --limit 'zones are no slower than the base'"
    assert f"see it again: {again}" in done.stdout
    assert (checkout / "t.md").read_text().startswith("**The budget is broken.**\n\n| limit | verdict | found |\n")
    assert worktrees(checkout) == []


def test_a_product_beside_itself_passes(checkout: Path) -> None:
    (checkout / "budget.toml").write_text(
        '[[limit]]\nname = "like itself"\npath = "zones nftables"\nagainst = "base"\nratio = 2\nreason = "the same"\n'
    )
    done = gated(checkout, "--base", "HEAD", "--budget", "budget.toml", "--seconds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"pass +like itself: [01]\.\d+ times \([01]\.\d+ - [01]\.\d+, n = \d+\), limit 2\.0\n", done.stdout)


def test_a_base_that_does_not_run_proves_nothing_and_is_quoted(checkout: Path) -> None:
    (checkout / "swapper/__main__.py").write_text("raise SystemExit('too old for this')\n")
    committed(checkout)
    limit = "stateless is no slower than the base"
    done = gated(checkout, "--base", "HEAD", "--seconds", "1", "--limit", limit)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.startswith(
        f"inconclusive {limit}: stateless nftables, base was not measured: too old for this\n"
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_takes_the_worktree_away(checkout: Path, number: signal.Signals, code: int) -> None:
    argv = [str(BENCH), "gate", "--base", "HEAD", "--limit", "zones are no slower than the base"]
    with subprocess.Popen(argv, cwd=checkout, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        tree = Path(process.stderr.readline().strip().removeprefix("HEAD is checked out in "))
        assert worktrees(checkout) == [tree]
        process.send_signal(number)
        assert process.wait(timeout=30) == code
    assert (worktrees(checkout), tree.parent.exists()) == ([], False)
