"""Steps of the sweeps, measured in small as a run does."""

from __future__ import annotations

from typing import Any

import pytest

from bench.parts.sweeps import steps
from bench.proxies import Proxy, ProxyError
from bench.step import Plan

pytestmark = pytest.mark.bench


def measured(name: str, plan: Plan) -> dict[str, Any]:
    """The point that a step finds."""
    (step,) = (step for step in steps(plan) if step.name == name)
    (point,) = step.measure()["points"]
    found: dict[str, Any] = point
    return found


def test_a_crowded_path_has_its_ratio_and_its_commits() -> None:
    point = measured("flows 1,000, zones nftables", Plan())
    assert (point["path"], point["x"]) == ("zones nftables", 1_000)
    assert 0 < point["low"] <= point["ratio"] <= point["high"]
    assert point["n"] > 1
    assert len(point["commit_ms"]) > 1
    assert all(commit_ms > 0 for commit_ms in point["commit_ms"])


def test_a_swap_has_its_losses_beside_the_model() -> None:
    point = measured("rate 500, zones nftables", Plan())
    assert (point["lost"], point["sent"], point["model"]) == (0, 1_250, 0)


def test_a_path_that_cannot_go_so_far_says_why() -> None:
    def refuses(*_: object) -> Any:
        raise ProxyError("nginx ended with 1: no such port")

    proxies = (Proxy("nginx", ("udp",), "nginx", "reload", refuses),)
    point = measured("payload 8,192, nginx", Plan(proxies=proxies))
    assert point == {"path": "nginx", "x": 8_192, "failed": "nginx ended with 1: no such port"}
