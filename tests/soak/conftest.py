"""The fixtures of deployments."""

from tests.deploy.fixtures import binary
from tests.docker.conftest import engine, one_engine

__all__ = ["binary", "engine", "one_engine"]
