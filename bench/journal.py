"""What an unfinished run has measured so far, kept beside its results file so that the run can go on.

JSON lines: the first says what the run is, each further one what one step came to. A line counts once it is whole.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.results import ResultsError
from swapper.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

__all__ = ["Journal", "Kept", "differences", "kind", "read"]

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a journal holds: the run, its steps, and how long the part is that is whole."""

    header: Entry
    entries: list[Entry]
    size_bytes: int


def read(path: Path) -> Kept | None:
    """What is kept under `path`, without a torn last line; None where there is no journal. Raises ResultsError."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}") from error
    size_bytes = content.rfind(b"\n") + 1
    try:
        header, *entries = [json.loads(line) for line in content[:size_bytes].splitlines()]
    except ValueError:
        return None  # not even its header came to be, or it is not a journal: there is nothing to go on with
    return Kept(header, entries, size_bytes)


def kind(header: Entry) -> Entry:
    """What two runs have to have in common, of what a header says.

    Of a missing proxy its name alone: its log has times and process numbers. Of sysctls none of conntrack's: they are
    there once the first rule has loaded the module, which a run may have done itself.
    """
    environment = dict(header.get("environment", {}))
    sysctls = environment.pop("sysctls", {})
    return {
        **header,
        "missing": sorted(header.get("missing", ())),
        "environment": environment,
        "sysctls": {name: value for name, value in sysctls.items() if not name.startswith("net/netfilter/")},
    }


def differences(then: Entry, now: Entry, *, within: str = "") -> list[str]:
    """What two kinds of run say differently, in words; a run goes on only where there is nothing."""
    found = []
    for key in sorted(then.keys() | now.keys()):
        old, new = then.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, within=f"{within}{key} ")
        elif old != new:
            found.append(f"{within}{key} was {json.dumps(old)}, is {json.dumps(new)}")
    return found


@dataclass(slots=True)
class Journal:
    """A journal that is open for more: what was added is on the disk when `add` returns."""

    path: Path
    header: Entry
    entries: list[Entry] = field(default_factory=list)
    _fd: int = field(init=False)
    _size_bytes: int = field(default=0)

    @classmethod
    def begun(cls, path: Path, header: Entry) -> Self:
        """A new one, instead of what is there. Raises ResultsError."""
        journal = cls(path, header)
        journal._write(header)
        return journal

    @classmethod
    def resumed(cls, path: Path, kept: Kept) -> Self:
        """The one that was read, to go on with. Raises ResultsError."""
        return cls(path, kept.header, kept.entries, _size_bytes=kept.size_bytes)

    def __post_init__(self) -> None:
        """Open it, and drop what is not whole."""
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.ftruncate(self._fd, self._size_bytes)
            sync_folder(self.path.parent)
        except OSError as error:
            raise ResultsError(f"{self.path}: cannot be written: {error.strerror}") from error

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """It stays on the disk."""
        os.close(self._fd)

    def add(self, entry: Entry) -> None:
        """Keep one more. Raises ResultsError; what was kept before stays."""
        self._write(entry)
        self.entries.append(entry)

    def remove(self) -> None:
        """Once the whole document is in its place."""
        self.path.unlink()

    def _write(self, entry: Entry) -> None:
        line = memoryview(json.dumps(entry).encode() + b"\n")
        try:
            rest = line
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            os.fsync(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size_bytes)
            raise ResultsError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._size_bytes += len(line)
