"""What a release is made of, as files: unpacked, hashed and made durable. It knows neither services nor tags."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from swapper.errors import FetchError
from swapper.files import sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["digest", "is_archive", "make_durable", "unpack"]

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
# RuntimeError: an encrypted zip, or one that is packed in a way that Python does not know. ValueError: a NUL in a name.
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class _Member:
    """One entry of an archive: a link if it has a target, a folder if it has no content."""

    name: str
    mode: int = 0
    target: str = ""
    content: IO[bytes] | None = None


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive that `unpack` takes."""
    return path.name.endswith(_SUFFIXES)


def unpack(archive: Path, folder: Path) -> None:
    """Lay out an archive in `folder`, which is made: files, folders and symbolic links, without special modes.

    Raises FetchError for a broken archive or one with anything else in it, OSError for a full disk.
    """
    # Not tarfile's `data` filter: Python 3.11.2, which Debian 12 has, is without it.
    folder.mkdir()
    links: dict[Path, str] = {}
    try:
        for member in _zip_members(archive) if archive.suffix == ".zip" else _tar_members(archive):
            path = _inside(folder, member.name, archive)
            (path.parent if member.content or member.target else path).mkdir(parents=True, exist_ok=True)
            if member.target:
                _inside(folder, os.path.normpath(PurePosixPath(member.name).parent / member.target), archive)
                links[path] = member.target
            elif member.content:
                _write(path, member.content, member.mode)
        for path, target in links.items():  # last, so that nothing is ever written through one
            path.symlink_to(target)
    except _BROKEN as error:
        raise FetchError(f"{archive.name}: a broken archive: {error}") from error


def digest(path: Path) -> str:
    """`sha256:...` of a file's bytes, or of the names and contents in a folder. Raises OSError."""
    if not path.is_dir():
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    whole = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        content = str(each.readlink()) if each.is_symlink() else "" if each.is_dir() else digest(each)
        whole.update(os.fsencode(f"{each.relative_to(path)}\0{content}\0"))
    return f"sha256:{whole.hexdigest()}"


def make_durable(folder: Path) -> None:
    """Bring a folder and all that is in it to the disk. Raises OSError."""
    for path in (*folder.rglob("*"), folder):
        if path.is_symlink():
            continue
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.issym():
                yield _Member(member.name, target=member.linkname)
            elif member.isdir():
                yield _Member(member.name)
            elif member.isreg() or member.islnk():
                try:
                    yield _Member(member.name, member.mode, content=tar.extractfile(member))
                except KeyError:
                    raise _refusal(archive, member.name, "a link to what is not in the archive") from None
            else:
                raise _refusal(archive, member.name, "neither a file, a folder nor a link")


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            mode = member.external_attr >> 16  # as Unix archivers leave it; 0 from others
            if not member.filename:
                raise _refusal(archive, "''", "an empty name")
            if member.is_dir():
                yield _Member(member.filename)
            elif stat.S_ISLNK(mode):
                yield _Member(member.filename, target=os.fsdecode(opened.read(member)))
            else:
                with opened.open(member) as content:
                    yield _Member(member.filename, mode or 0o644, content=content)


def _inside(folder: Path, name: str, archive: Path) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _refusal(archive, name, "a path that leads out of the release")
    return folder / path


def _write(path: Path, content: IO[bytes], mode: int) -> None:
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)
        os.fchmod(file.fileno(), mode & 0o755 | 0o600)


def _refusal(archive: Path, name: str, found: str) -> FetchError:
    return FetchError(f"{archive.name}: {name!r} is {found}; nothing was unpacked from it")
