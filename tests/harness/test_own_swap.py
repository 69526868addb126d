"""Somebody's own swap script, measured by the same streams and the same ledger."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from harness.calibrate import held
from harness.scenario import Record, Scenario, run
from swapper.procfs import started_ticks

pytestmark = pytest.mark.harness

RECIPE = Path(__file__).parents[2] / "examples/swap.sh"
SWAPPER = Path(sys.executable).with_name("swapper")


def measured(command: Path | str, **options: object) -> Record:
    chosen: dict[str, object] = {"sides": ("outside",), "families": (4,), "service_ms": 20, **options}
    return run(held(Scenario(swap_command=str(command), **chosen)))  # type: ignore[arg-type]  # options of any kind


def script(folder: Path, text: str) -> Path:
    path = folder / "swap"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_recipe_loses_what_is_in_flight_and_the_ledger_says_why() -> None:
    record = measured(RECIPE)
    assert record.ledger is not None
    counts = record.ledger.totals
    lost = counts["lost_down"] + counts["misaddressed"]
    assert (record.verdict, counts["lost_up"]) == ("fail", 0)
    assert 32 <= lost <= 48  # rate x service time: 2,000/s x 20 ms
    assert str(lost) in record.why or "misaddressed" in record.why


def test_a_script_that_swaps_well_passes(tmp_path: Path) -> None:
    config = tmp_path / "swapper.toml"
    config.write_text(
        f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n[services.mine]\n'
        'ports = [{ protocol = "udp", public = 1000, blue = 1001, green = 1002 }]\n'
    )
    swapper = f'{shlex.quote(str(SWAPPER))} "$1" mine --config {shlex.quote(str(config))}'
    good = script(tmp_path, f'set -- "$([ -n "$SWAP_FROM" ] && echo swap || echo apply)"\n{swapper}')
    record = measured(good)
    assert (record.verdict, record.ledger.lost if record.ledger else None) == ("pass", 0), record.why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('echo "no such table"; exit 4', "ended with 4: no such table"),
        ('[ -z "$SWAP_FROM" ] || { echo waiting; sleep 20; }', "did not end within 2 s: waiting"),
        (r'printf "\\377\\n"; exit 4', "ended with 4: \ufffd"),
        (
            '[ -n "$SWAP_FROM" ] && echo "nothing to do" || exec ' + str(RECIPE),
            "brought no traffic to green; it said: nothing",
        ),
        ("exit 0", "brought no traffic to blue and green; it said nothing"),
    ],
    ids=["fails", "hangs", "says no text", "swaps nothing", "carries nothing"],
)
def test_a_script_that_does_not_swap_proves_nothing_and_is_quoted(tmp_path: Path, text: str, why: str) -> None:
    record = measured(script(tmp_path, text), swap_timeout_s=2)
    assert record.verdict == "inconclusive"
    assert why in record.why


def test_what_a_script_leaves_running_holds_nothing_up_and_ends_with_the_run(tmp_path: Path) -> None:
    """The backend is up at the first call, so a proxy that checks it may be started then, in the plainest way."""
    proxy = 'socat -T 30 "UDP4-LISTEN:$SWAP_PUBLIC,fork,reuseaddr" "UDP4:127.0.0.1:$SWAP_TO_PORT" &'
    first = f'ss -Hlun "sport = :$SWAP_TO_PORT" | grep -q . || exit 7\n{proxy}\necho $! >"{tmp_path}/proxy"'
    record = measured(script(tmp_path, f'[ -n "$SWAP_FROM" ] || {{ {first}\n}}'), service_ms=0, seconds=1)
    assert "brought no traffic to green; it said nothing" in record.why
    assert started_ticks(int((tmp_path / "proxy").read_text())) is None


@pytest.mark.parametrize("command", ["./swap 'now", " "], ids=["an open quotation", "empty"])
def test_a_command_that_is_none_is_refused_before_anything_is_made(command: str) -> None:
    with pytest.raises(ValueError, match=r"quotation|empty"):
        Scenario(swap_command=command)


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    record = measured(tmp_path / "nowhere.sh")
    assert (record.verdict, "nowhere.sh" in record.why) == ("inconclusive", True)
