"""What the sweeps measure, and the lines that their points make; no traffic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.parts.series import series
from bench.parts.sweeps import steps
from bench.proxies import PROXIES
from bench.step import Plan
from harness.crowd import MOST, packets
from harness.specs import PUBLIC, udp_ports


def value(kind: str, *points: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "unit": f"unit of {kind}", "points": list(points)}


def test_the_sweeps_fit_into_seven_minutes_and_no_step_takes_more_than_one() -> None:
    found = steps(Plan(proxies=PROXIES))
    assert sum(step.about_s for step in found) <= 7 * 60
    assert max(step.about_s for step in found) <= 60


def test_steps_have_names_of_their_own_and_the_order_of_the_seed() -> None:
    names = [step.name for step in steps(Plan(proxies=PROXIES))]
    assert len(set(names)) == len(names)
    assert names == [step.name for step in steps(Plan(proxies=PROXIES))]
    others = [step.name for step in steps(Plan(proxies=PROXIES, seed=2))]
    assert names != others
    assert sorted(names) == sorted(others)


def test_a_quick_plan_has_no_sweeps_and_a_missing_proxy_no_steps() -> None:
    assert steps(Plan(quick=True, proxies=PROXIES)) == []
    assert not [step.name for step in steps(Plan()) if "nginx" in step.name]


def test_steps_become_lines_by_kind_and_path_with_points_in_order() -> None:
    measured = {
        "sweeps": {
            "a": value("flows", {"path": "zones", "x": 1000, "ratio": 1.1}),
            "b": value("ports", {"path": "zones", "x": 1, "ratio": 1.2}),
            "c": value("flows", {"path": "zones", "x": 1, "ratio": 1.0}, {"path": "nginx", "x": 1, "ratio": 1.6}),
        }
    }
    found = [(line.kind, line.path, [point["x"] for point in line.points]) for line in series(measured)]
    assert found == [("flows", "nginx", [1]), ("flows", "zones", [1, 1000]), ("ports", "zones", [1])]
    assert {line.kind: line.unit for line in series(measured)}["ports"] == "unit of ports"


def test_what_two_steps_found_at_one_point_is_one_point() -> None:
    first = {"ratio": 1.3, "low": 1.2, "high": 1.4, "n": 100}
    measured = {
        "sweeps": {
            "a": value("ports", {"path": "zones", "x": 100, "first": first}),
            "b": value("ports", {"path": "zones", "x": 100, "ratio": 1.1, "commit_ms": [0.5]}),
        }
    }
    (line,) = series(measured)
    assert line.points == ({"path": "zones", "x": 100, "first": first, "ratio": 1.1, "commit_ms": [0.5]},)
    assert measured["sweeps"]["a"]["points"] == [{"path": "zones", "x": 100, "first": first}]


def test_a_run_without_sweeps_has_no_lines() -> None:
    assert series({"swaps": {}}) == []


@pytest.mark.parametrize("count", [1, 2, 1_000, 10_000])
def test_ports_are_all_different_and_none_is_of_local_clients(count: int) -> None:
    ports = udp_ports(count)
    used = [number for public, internal in ports for number in (public, *internal.values())]
    assert len(set(used)) == len(used) == 3 * count
    assert max(used) < 32_768
    assert ports[(count - 1) // 2][0] == PUBLIC


def test_every_packet_is_a_flow_of_its_own_as_scapy_reads_it() -> None:
    from scapy.layers.inet import IP, UDP

    made = packets(120_000, PUBLIC)
    assert len(np.unique(made[["source", "source_port"]])) == 120_000
    read = IP(made[-1].tobytes())
    assert (read.src, read.dst, read.len, read.ttl) == ("198.18.0.3", "192.0.2.1", len(read), 64)
    assert (read[UDP].sport, read[UDP].dport, read[UDP].len) == (29_999, PUBLIC, 9)


def test_a_crowd_that_fits_into_no_table_is_refused() -> None:
    with pytest.raises(ValueError, match=f"{MOST + 1} flows are more than {MOST}"):
        packets(MOST + 1, PUBLIC)
