"""The nftables rules ask for nothing that the kernels of supported systems cannot do."""

from __future__ import annotations

import re

import pytest

from swapper.dataplane import stateless, zones_nft

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
    """Linux before 5.14 refuses the whole table, and before 5.19 the rule does nothing."""
    assert " dnat ip to " in rules
    assert not re.search(r"dnat to|to :", rules)
