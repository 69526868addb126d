"""Twenty deployments of containers in a row, in one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import support
from tests.deploy.deployed import Load, faults
from tests.docker.engines import Bridged, Contained, Engine, deployed

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

DEPLOYMENTS = 20
KEPT = 5


@pytest.mark.parametrize("kind", [Contained, Bridged])
def test_twenty_deployments_lose_nothing(engine: Engine, binary: Path, kind: type[Contained]) -> None:
    with deployed(kind, engine, binary) as town:
        tags = [town.build(f"v{number}", service_ms=20, boot_ms=5000) for number in range(DEPLOYMENTS + 1)]
        town.deploys(tags[0])
        with Load(town, seconds=DEPLOYMENTS * 7.5) as load:
            for tag in tags[1:]:
                receipt = town.deploys(tag)
                assert engine.containers() == {f"swapper-game-{receipt['to']}": tag}
            account = load.ledger()
        assert faults(account) == {}
        releases = sorted(path.name for path in (town.state / "services/game/releases").iterdir())
        assert releases == sorted(tags[-KEPT:])
        images = engine.docker("images", "--format", "{{.Tag}}", "swapper-test").stdout.split()
        assert sorted(images) == sorted(tags[-KEPT:])
    support.MEASURED.info("%s: %d deployments, 0 of %d lost", kind.network, DEPLOYMENTS, account.scheduled)
