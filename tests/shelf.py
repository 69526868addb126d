"""What the tests of releases share: an engine whose images are files, and releases that are built beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from swapper.errors import FetchError
from swapper.model import BackendKind, Service
from swapper.recipe import Recipe, Source, SourceKind
from swapper.releases import Image, Release, Releases

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["FolderImages", "Shelf", "build", "fetched", "local"]


@dataclass
class FolderImages:
    """An engine whose images are files; `registry` is what can be pulled."""

    folder: Path
    registry: dict[str, bytes] = field(default_factory=dict)
    in_use: set[str] = field(default_factory=set)  # cannot be removed
    names: dict[str, set[str]] = field(default_factory=dict)  # by image, which goes only with all of them
    logins: list[tuple[str, str]] = field(default_factory=list)

    def pull(self, image: str, username: str, password: str) -> Image:
        self.logins.append((username, password))
        if image not in self.registry:
            raise FetchError(f"{image}: the registry has no such image")
        return self._keep(self.registry[image], image)

    def load(self, archive: Path) -> Image:
        return self._keep(archive.read_bytes(), archive.name)

    def remove(self, image: str, names: Iterable[str] = ()) -> None:
        if image in self.in_use or self.names.get(image, set()) - set(names):
            raise FetchError(f"{image}: in use")
        (self.folder / image).unlink(missing_ok=True)

    def exists(self, image: str) -> bool:
        return (self.folder / image).exists()

    def all(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}

    def _keep(self, content: bytes, name: str) -> Image:
        image = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.folder.mkdir(exist_ok=True)
        (self.folder / image).write_bytes(content)
        self.names.setdefault(image, set()).add(name)
        return Image(image, (name,))


class Shelf:
    """The releases of one service, what was said, and where its builds come from."""

    def __init__(
        self, folder: Path, source: Source, kind: BackendKind = BackendKind.PROCESS, *, state: str = "state"
    ) -> None:
        self.folder = folder / state
        self.said: list[str] = []
        self.images = FolderImages(folder / "images")
        service = Service("game", (), backend=kind, recipe=Recipe(source=source))
        images = self.images if kind is BackendKind.DOCKER else None
        self.releases = Releases(service, self.folder, images=images, say=self.said.append)

    def on_disk(self) -> set[str]:
        return {path.name for path in (self.folder / "releases").iterdir()}


def local(
    folder: Path,
    kind: BackendKind = BackendKind.PROCESS,
    *,
    state: str = "state",
    name: str = "game-{tag}",
    keep: int = 5,
) -> Shelf:
    """Releases that are built in `folder`/builds."""
    (folder / "builds").mkdir(exist_ok=True)
    return Shelf(folder, Source(SourceKind.LOCAL, path=f"{folder}/builds/{name}", keep=keep), kind, state=state)


def build(folder: Path, name: str, content: bytes = b"binary") -> Path:
    """A file that a local source offers."""
    path = folder / "builds" / name
    path.write_bytes(content)
    return path


def fetched(shelf: Shelf, folder: Path, *tags: str) -> list[Release]:
    """Releases of one file each, in this order."""
    for tag in tags:
        build(folder, f"game-{tag}", tag.encode())
    return [shelf.releases.fetch(tag) for tag in tags]
