"""The Docker Engine: one client, its errors as Swapper's, and its images."""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from swapper.errors import DeployError, FetchError, MissingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["EngineImages", "client", "refusals"]

TIMEOUT_S = 60


@lru_cache(maxsize=1)
def client() -> Any:
    """The engine that $DOCKER_HOST names, or this host's. Raises MissingError when none answers."""
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        raise MissingError("the Docker SDK is missing; bring it with: pip install 'portswap[docker]'") from error
    try:
        found = docker.from_env(timeout=TIMEOUT_S)
        found.ping()
    except DockerException as error:
        raise MissingError(
            f"no Docker Engine answers ({error}); start it with: systemctl start docker, or name it in $DOCKER_HOST"
        ) from error
    return found


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """The engine's errors as DeployError: what was tried, and what the engine said."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        yield
    except (DockerException, RequestException) as error:
        said = getattr(error, "explanation", None) or error
        raise DeployError(f"{what}: the Docker Engine said: {said}") from error


class EngineImages:
    """The images of the engine, as `swapper.releases` fetches and prunes them."""

    def pull(self, image: str, username: str, password: str) -> str:
        """Pull `NAME:TAG` or `NAME@DIGEST`; the image's id. Raises FetchError."""
        login = {"username": username, "password": password} if username else None
        try:
            with refusals(f"pulling {image}"):
                # A name without a tag would pull every tag that there is.
                pulled = client().images.pull(image, auth_config=login)
                return str(pulled.id)
        except DeployError as error:
            raise FetchError(str(error)) from error

    def load(self, archive: Path) -> str:
        """Load an image archive (`docker save`); the id of the one image in it. Raises FetchError."""
        try:
            with refusals(f"loading {archive.name}"), archive.open("rb") as file:
                images = client().images.load(file)
        except DeployError as error:
            raise FetchError(str(error)) from error
        if len(images) != 1:
            raise FetchError(f"{archive.name} holds {len(images)} images; an archive of a release holds one")
        return str(images[0].id)

    def remove(self, image: str) -> None:
        """Remove an image that no container uses; others stay."""
        from docker.errors import APIError, ImageNotFound

        try:
            client().images.remove(image)
        except ImageNotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # a conflict: something still uses it, or it has another name
                raise DeployError(f"removing image {image}: the Docker Engine said: {error.explanation}") from error

    def exists(self, image: str) -> bool:
        """Whether the engine has it."""
        from docker.errors import ImageNotFound

        with refusals(f"looking for image {image}"):
            try:
                client().images.get(image)
            except ImageNotFound:
                return False
        return True
