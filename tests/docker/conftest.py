"""The fixtures of deployments."""

from tests.deploy.fixtures import binary, town

__all__ = ["binary", "town"]
