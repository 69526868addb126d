"""The nftables rules ask for nothing that the kernels of supported systems cannot do."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace

import pytest

from swapper.dataplane import libnftables, stateless, zones_nft

RULES = {"zones": zones_nft.BODY, "stateless": stateless.BODY + stateless.NAT_CHAINS}


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_no_map_is_used_as_a_set(rules: str) -> None:
    """Linux 6.1, which is Debian 12's, refuses the whole table."""
    maps = set(re.findall(r"^ *map (\w+)", rules, re.MULTILINE))
    matched = set(re.findall(r"(?<!map )@(\w+)", rules))
    assert maps
    assert not maps & matched


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_no_translation_is_without_an_address(rules: str) -> None:
    """Old kernels refuse the whole table, and before 5.19 the rule does nothing."""
    assert " dnat ip to " in rules
    assert not re.search(r"dnat to|to :", rules)


@pytest.mark.parametrize(
    ("release", "mend"),
    [("4.19.0-27-amd64", "Linux 5.2 and later have it"), ("6.1.0", "load it: modprobe"), ("10.0", "load it: modprobe")],
)
def test_only_a_kernel_that_is_too_old_is_told_which_one_is_not(
    monkeypatch: pytest.MonkeyPatch, release: str, mend: str
) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release=release))
    assert f"{release}, lacks something that the rules need; {mend}" in str(libnftables._lack("...", "5.2"))
