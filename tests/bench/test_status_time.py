"""How long `swapper status` takes as a whole process; a machine that is slow to start any program is allowed for."""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from swapper.model import DataplaneName
from tests import support

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.netns import Namespace, Net

pytestmark = pytest.mark.bench

STATUS = Path(sys.executable).with_name("swapper"), "status"
ROUNDS = 25
LIMIT_MS = 150.0


def took_ms(host: Namespace, argv: tuple[str | Path, ...], env: Mapping[str, str]) -> float:
    began = time.monotonic()
    host.run([str(word) for word in argv], env=env)
    return (time.monotonic() - began) * 1e3


def test_status_is_quick(netns_topology: Net, tmp_path: Path) -> None:
    host = netns_topology["host"]
    config = support.configuration(tmp_path, DataplaneName.ZONES, None)
    # An installed copy has its bytecode beside it; here it is kept elsewhere, whatever the environment says.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path / "bytecode")
    status = (*STATUS, "--config", config)
    host.run([str(STATUS[0]), "apply", "--config", str(config)], env=env)
    took_ms(host, status, env)
    rounds = [(took_ms(host, ("true",), env), took_ms(host, status, env), support.bare_ms()) for _ in range(ROUNDS)]
    status_ms = statistics.median(whole - entered for entered, whole, _ in rounds)
    allowed_ms = LIMIT_MS * support.slower(statistics.median(bare for *_, bare in rounds))
    support.MEASURED.info("swapper status takes %.0f ms at the median, of %.0f", status_ms, allowed_ms)
    assert status_ms <= allowed_ms
