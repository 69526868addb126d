"""The releases of a service that this host has: fetched whole under their final names, one of them `current`.

A release is a folder `releases/TAG` with `release.json` and `files/`. Images live in the container engine; this
module knows it only as `Images`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from swapper import secrets
from swapper.artifact import digest, is_archive, make_durable, unpack
from swapper.errors import DeployError, FetchError, LockedError, SwapperError
from swapper.files import replace_file, replace_link, sync_folder
from swapper.lock import file_lock
from swapper.model import BackendKind, Service
from swapper.recipe import SourceKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Image", "Images", "Release", "Releases"]

_TAG = re.compile(r"(?!.*\.\.)[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}")
_IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(rf"{_TAG.pattern}(@[0-9a-f]{{12}})?")  # of a release's folder


@dataclass(frozen=True, slots=True)
class Image:
    """An image that has come, and the names that it brought along."""

    id: str  # sha256:...
    names: tuple[str, ...] = ()


class Images(Protocol):
    """The images of a container engine. What fails raises a SwapperError."""

    def pull(self, image: str, username: str, password: str) -> Image:
        """Fetch `name:tag` or `name@digest`."""

    def load(self, archive: Path) -> Image:
        """Take an image archive in."""

    def remove(self, image: str, names: Iterable[str] = ()) -> None:
        """Take names off an image and delete it; one that is not there is no mistake, one that is in use is."""

    def exists(self, image: str) -> bool:
        """Whether the engine has the image."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that this host has whole.

    `tag` is the name of its folder: the tag; for a tag of a registry, which may move, `TAG@` and 12 digits of the
    image's id; for a digest, its first 12 digits.
    """

    tag: str
    digest: str  # sha256:... of what was fetched; of an image, its id
    image: str  # what a container is made of; empty for files
    folder: Path
    fetched_at: float  # Unix time
    names: tuple[str, ...] = ()  # that the image brought along, to be taken off it again


class Releases:
    """The releases of `service` in `folder`. `say` hears of progress and of what went wrong without stopping it."""

    def __init__(
        self, service: Service, folder: Path, *, images: Images | None, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Name the folder; nothing is read or made yet."""
        self._service = service
        self._source = service.recipe.source
        self._folder = folder
        self._releases = folder / "releases"
        self._images = images
        self._say = say

    def fetch(self, ref: str | None) -> Release:
        """Have the release `ref` (a tag; for a registry also `sha256:...`) whole; None: the latest.

        What is already here is not fetched again. Raises FetchError if it cannot be had (nothing is left of it),
        ConfigError for a secret that is missing, LockedError while another command fetches for this service.
        """
        if ref is not None and (known := self._whole(self._name(ref))):
            return known
        with file_lock(self._folder / ".fetch.lock", wait_s=0):
            try:
                self._sweep()
                match self._source.kind:
                    case SourceKind.LOCAL:
                        return self._from_path(ref)
                    case SourceKind.REGISTRY:
                        return self._from_registry(ref or "latest")
                    case SourceKind.GITHUB:
                        return self._from_github(ref)
            except OSError as error:
                where = f"{self._service.name}: the release cannot be kept in {self._releases}"
                raise FetchError(f"{where}: {_reason(error)}") from error

    def known(self) -> list[Release]:
        """The releases that are here, the newest first."""
        names = [path.name for path in self._releases.iterdir()] if self._releases.is_dir() else []
        found = [release for name in names if (release := self.get(name))]
        return sorted(found, key=lambda release: (release.fetched_at, release.tag), reverse=True)

    def get(self, tag: str) -> Release | None:
        """The release of that tag, None if it is not here."""
        if not _NAME.fullmatch(tag):
            return None
        folder = self._releases / tag
        try:
            stored = json.loads((folder / "release.json").read_bytes())
            names = tuple(map(str, stored.get("names", ())))
            return Release(tag, str(stored["digest"]), str(stored["image"]), folder, float(stored["fetched_at"]), names)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def current(self) -> Release | None:
        """The release that `current` leads to, None before the first one."""
        try:
            return self.get((self._folder / "current").readlink().name)
        except OSError:
            return None

    def activate(self, release: Release) -> None:
        """Make `current` lead to `release`; it leads to the old or the new one at any instant. Raises DeployError."""
        try:
            replace_link(self._folder / "current", f"releases/{release.tag}")
        except OSError as error:
            raise DeployError(f"{self._folder / 'current'}: cannot be replaced: {_reason(error)}") from error

    def prune(self, keep: set[str]) -> list[str]:
        """Remove all but the current release, the newest ones and those in `keep`; the tags that went.

        Whatever cannot be removed now is said, and tried again the next time.
        """
        known = self.known()
        kept = keep | {release.tag for release in known[: self._source.keep]}
        if current := self.current():
            kept.add(current.tag)
        in_use = {release.image for release in known if release.tag in kept} | self._images_of_others()
        gone = []
        for release in known:
            if release.tag in kept:
                continue
            try:
                if release.image and release.image not in in_use:
                    names = {name for other in known if other.image == release.image for name in other.names}
                    self._engine.remove(release.image, names)
                _discard(release.folder)
                gone.append(release.tag)
            except (SwapperError, OSError) as error:
                self._say(f"{self._service.name}: {release.tag} stays for now: {error}")
        self.sweep()
        return gone

    def sweep(self) -> None:
        """Delete what a command that was killed while it fetched has left; nothing while another one fetches."""
        if self._releases.is_dir():
            with suppress(LockedError), file_lock(self._folder / ".fetch.lock", wait_s=0):
                self._sweep()

    def _images_of_others(self) -> set[str]:
        """The images of every other service's releases, those being fetched too."""
        found = set()
        for path in self._folder.parent.glob("*/releases/*/release.json"):
            if path.parents[2] != self._folder:
                with suppress(OSError, ValueError, TypeError, KeyError):
                    found.add(str(json.loads(path.read_bytes())["image"]))
        return found

    @property
    def _engine(self) -> Images:
        if self._images is None:
            raise FetchError(f'{self._service.name}: an image needs backend.kind = "docker"')
        return self._images

    def _name(self, ref: str) -> str:
        """The name of a release's folder. Raises FetchError for a text that could lead elsewhere."""
        if self._source.kind is SourceKind.REGISTRY and _IMAGE_DIGEST.fullmatch(ref):
            return _short(ref)
        if not _NAME.fullmatch(ref):
            allowed = "1 to 128 letters, digits and ._+-, without .. and without . or - in front"
            raise FetchError(f"{self._service.name}: {ref[:140]!r} is not a tag; allowed: {allowed}")
        return ref

    def _whole(self, tag: str) -> Release | None:
        """A release that is here with its image, which is loaded again if somebody removed it."""
        release = self.get(tag)
        if release is None or not release.image or self._engine.exists(release.image):
            return release
        archive = next((release.folder / "files").iterdir(), None)
        return release if archive and self._engine.load(archive).id == release.image else None

    def _from_path(self, tag: str | None) -> Release:
        if tag is None:
            raise FetchError(f"{self._service.name}: which release? name it: swapper deploy {self._service.name} TAG")
        origin = Path(self._source.path.replace("{tag}", tag))
        if not origin.exists():
            raise FetchError(f"{self._service.name}: there is no {origin}")
        with self._stage(tag) as stage:
            fetched = stage / "fetched" / origin.name
            if origin.is_dir():
                shutil.copytree(origin, fetched, symlinks=True)
            else:
                shutil.copy(origin, fetched)
            return self._lay_out(tag, stage, fetched)

    def _from_github(self, tag: str | None) -> Release:
        from swapper.github import GitHub

        with GitHub(self._source, say=self._say) as github:
            asset = github.find(tag)
            if known := self._whole(self._name(asset.tag)):
                return known
            with self._stage(asset.tag) as stage:
                fetched = stage / "fetched" / asset.name
                github.download(asset, fetched)
                return self._lay_out(asset.tag, stage, fetched)

    def _from_registry(self, ref: str) -> Release:
        if "@" in ref:
            raise FetchError(f"{self._service.name}: {ref} is no longer on this host; deploy its tag or digest")
        password = secrets.read(self._source.password) if self._source.password else ""
        is_digest = _IMAGE_DIGEST.fullmatch(ref)
        name = f"{self._source.image}{'@' if is_digest else ':'}{ref}"
        image = self._engine.pull(name, self._source.username, password)
        tag = _short(ref) if is_digest else f"{ref}@{_short(image.id)}"
        if known := self.get(tag):
            return known
        with self._stage(tag) as stage:
            (stage / "fetched").rename(stage / "files")
            return self._keep(tag, stage, digest=image.id, image=image)

    @contextmanager
    def _stage(self, tag: str) -> Iterator[Path]:
        """A folder beside the releases, with `fetched` in it; gone afterwards unless it was kept."""
        stage = self._releases / f".tmp-{tag}"
        try:
            (stage / "fetched").mkdir(parents=True)
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _lay_out(self, tag: str, stage: Path, fetched: Path) -> Release:
        """Make a release of the file or folder that was fetched."""
        files = stage / "files"
        if self._service.backend is BackendKind.DOCKER:
            image = self._engine.load(fetched)
            fetched.parent.rename(files)
            return self._keep(tag, stage, digest=image.id, image=image)
        found = digest(fetched)
        if fetched.is_dir():
            fetched.rename(files)
        elif is_archive(fetched):
            unpack(fetched, files)
        else:
            fetched.chmod(0o755)
            fetched.parent.rename(files)
        shutil.rmtree(stage / "fetched", ignore_errors=True)
        return self._keep(tag, stage, digest=found)

    def _keep(self, tag: str, stage: Path, *, digest: str, image: Image = Image("")) -> Release:
        """Bring a staged release to the disk, then under its final name."""
        release = Release(tag, digest, image.id, self._releases / tag, time.time(), image.names)
        stored = {
            "tag": tag,
            "digest": digest,
            "image": image.id,
            "names": image.names,
            "fetched_at": release.fetched_at,
        }
        replace_file(stage / "release.json", json.dumps(stored).encode() + b"\n")
        make_durable(stage)
        if os.path.lexists(release.folder):  # and is not whole, else it were not fetched
            _discard(release.folder)
        stage.rename(release.folder)
        sync_folder(self._releases)
        return release

    def _sweep(self) -> None:
        """Delete what a killed command left; the caller holds the lock of those who fetch."""
        for pattern in (".tmp-*", ".trash-*"):
            for path in self._releases.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _discard(folder: Path) -> None:
    """Delete a release: at once under its name, then file by file."""
    trash = folder.with_name(f".trash-{folder.name}")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    sync_folder(folder.parent)
    shutil.rmtree(trash, ignore_errors=True)


def _short(image_digest: str) -> str:
    return image_digest.removeprefix("sha256:")[:12]


def _reason(error: OSError) -> str:
    if isinstance(error, shutil.Error):  # a list of (from, to, why), one for each file
        origin, _, why = error.args[0][0]
        return f"{origin}: {why}"
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
