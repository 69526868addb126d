"""The Docker Engine: one client, its errors as Swapper's, and its images."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from swapper.errors import DeployError, FetchError, MissingError
from swapper.releases import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["EngineImages", "client", "refusals"]

TIMEOUT_S = 60
LOAD_TIMEOUT_S = 1800  # the engine may say nothing until it has unpacked a large archive onto a slow disk

_LOADED = re.compile(r"Loaded image(?: ID)?: (\S+)")


@lru_cache(maxsize=2)
def client(timeout_s: float = TIMEOUT_S) -> Any:
    """The engine that $DOCKER_HOST names, or this host's; it may be silent for `timeout_s` at a time.

    Raises MissingError when none answers.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError as error:
        raise MissingError("the Docker SDK is missing; bring it with: pip install 'portswap[docker]'") from error
    try:
        found = docker.from_env(timeout=timeout_s)
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

    def __init__(self, *, load_timeout_s: float = LOAD_TIMEOUT_S) -> None:
        self._load_timeout_s = load_timeout_s

    def pull(self, image: str, username: str, password: str) -> Image:
        """Pull `NAME:TAG` or `NAME@DIGEST`, however long that takes. Raises FetchError."""
        login = {"username": username, "password": password} if username else None
        with _unfetched(f"pulling {image}"):
            from docker.utils import parse_repository_tag

            name, tag = parse_repository_tag(image)  # a name without a tag would pull every tag that there is
            for line in client().api.pull(name, tag=tag, stream=True, decode=True, auth_config=login):
                _check(line)
            found = client().images.get(image)
            return Image(str(found.id), tuple({_familiar(image)} & set(found.tags)))

    def load(self, archive: Path) -> Image:
        """Load an image archive (`docker save`) that holds one image. Raises FetchError, and nothing of it stays."""
        with _unfetched(f"loading {archive.name}"), ExitStack() as undo:
            names: list[str] = []
            undo.callback(self._unload, names, {one["Id"] for one in client().api.images(all=True)})
            with archive.open("rb") as file:
                for line in client(self._load_timeout_s).api.load_image(file):
                    names += _LOADED.findall(line.get("stream", ""))
                    _check(line)
            loaded = _by_image(names)
            if len(loaded) != 1:
                raise FetchError(f"{archive.name} holds {len(loaded)} images; an archive of a release holds one")
            undo.pop_all()
        ((image, brought),) = loaded.items()
        return Image(image, tuple(brought))

    def remove(self, image: str, names: Iterable[str] = ()) -> None:
        """Remove an image with `names`. Raises DeployError for one that is in use or has any other name: it stays."""
        from docker.errors import ImageNotFound

        with refusals(f"removing image {image}"), suppress(ImageNotFound):
            tags = client().images.get(image).tags
            if others := sorted(set(tags) - set(names)):
                raise DeployError(f"removing image {image}: it has another name; docker rmi {' '.join(others)}")
            for name in tags:
                client().images.remove(name)
            client().images.remove(image)  # one that had no name is there still

    def exists(self, image: str) -> bool:
        """Whether the engine has it."""
        from docker.errors import ImageNotFound

        with refusals(f"looking for image {image}"):
            try:
                client().images.get(image)
            except ImageNotFound:
                return False
        return True

    def _unload(self, names: list[str], before: set[str]) -> None:
        """Remove what an archive has brought, but no image that was here before."""
        from docker.errors import DockerException

        with suppress(DeployError, DockerException):  # why the archive is refused is what matters
            for image, brought in _by_image(names).items():
                if image not in before:
                    self.remove(image, brought)


def _by_image(names: Iterable[str]) -> dict[str, list[str]]:
    """The names by the image that they are of; an image that came without one has none."""
    found: dict[str, list[str]] = {}
    for name in names:
        image = str(client().images.get(name).id)
        found.setdefault(image, []).extend([name] if name != image else [])
    return found


@contextmanager
def _unfetched(what: str) -> Iterator[None]:
    """The engine's errors as FetchError."""
    try:
        with refusals(what):
            yield
    except DeployError as error:
        raise FetchError(str(error)) from error


def _familiar(name: str) -> str:
    """A name as the engine shows it."""
    return name.removeprefix("index.docker.io/").removeprefix("docker.io/").removeprefix("library/")


def _check(line: dict[str, Any]) -> None:
    """A line of progress may be the error that ended it, after an answer that all is well."""
    from docker.errors import DockerException

    if "error" in line:
        raise DockerException(line["error"])
