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
