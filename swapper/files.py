"""Files that are at any instant the old or the new, and durable once written."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["replace_file", "replace_link", "sync_folder"]


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Put `content` under `path`, whatever the umask; one writer at a time. Raises OSError, and leaves the old one."""
    new = path.with_name(f".{path.name}.new")  # one fixed name: what a killed writer left goes here
    new.unlink(missing_ok=True)
    try:
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(fd)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def replace_link(path: Path, target: str) -> None:
    """Make `path` a symbolic link to `target`; one writer at a time. Raises OSError, and leaves the old one."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
