"""The state file `mapped.txt`: which set each service was meant to be on. It does not know the kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swapper.errors import MissingError, StateError
from swapper.files import replace_file, sync_folder
from swapper.lock import file_lock
from swapper.model import SERVICE_NAME, PortSet

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Mapped", "StateFile"]

_WAIT_S = 10.0
_VERSION = 1
_GENERATION = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Mapped:
    """The set that a service was last moved to, and how many moves that took."""

    active: PortSet
    generation: int

    def __post_init__(self) -> None:
        """Raise ValueError for a generation that could not be read back."""
        if not _GENERATION.fullmatch(str(self.generation)):
            msg = f"generation {self.generation} is not 0 or more"
            raise ValueError(msg)


class StateFile:
    """`mapped.txt` in `state_dir`: one line a service, `NAME SET GENERATION`."""

    def __init__(self, state_dir: Path) -> None:
        """Name the folder; nothing is read or made yet."""
        self.path = state_dir / "mapped.txt"
        self._lock = state_dir / ".mapped.lock"

    def read(self) -> dict[str, Mapped]:
        """What was meant, by service name; empty without a file.

        Raises StateError for a file that cannot be trusted (it is kept), MissingError if this user may not
        read it.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            msg = f"{self.path}: cannot be read: {error.strerror}; run as root"
            raise MissingError(msg) from error
        except OSError as error:
            raise self._distrust(0, f"a file that cannot be read: {error.strerror}") from error
        return self._parse(content)

    def write(self, name: str, mapped: Mapped | None) -> None:
        """Replace the line of service `name`, or take it out; the file is at any instant the old or the new.

        Raises StateError for a file that cannot be trusted or written (it is kept), LockedError if another
        command is still writing after 10 s, MissingError if this user may not write.
        """
        if not SERVICE_NAME.fullmatch(name):
            msg = f"{name!r} is not a service name"
            raise ValueError(msg)
        with file_lock(self._lock, wait_s=_WAIT_S):
            services = self.read()
            services.pop(name, None)
            if mapped is not None:
                services[name] = mapped
            try:
                self._replace(services)
            except PermissionError as error:
                msg = f"{self.path}: cannot be written: {error.strerror}; run as root"
                raise MissingError(msg) from error
            except OSError as error:
                msg = f"{self.path}: cannot be written: {error.strerror}; it is as it was"
                raise StateError(msg) from error

    def _replace(self, services: dict[str, Mapped]) -> None:
        if services:
            lines = (f"{name} {mapped.active} {mapped.generation}\n" for name, mapped in sorted(services.items()))
            replace_file(self.path, "".join(lines).encode("ascii"))  # guarded by the lock
        else:
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)

    def _parse(self, content: bytes) -> dict[str, Mapped]:
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            raise self._distrust(content.count(b"\n", 0, error.start) + 1, "bytes that are not UTF-8") from error
        lines = text.split("\n")
        first = 0
        if version := re.fullmatch(r"# version ([1-9][0-9]{0,17})", lines[0]):
            if int(version[1]) > _VERSION:
                raise self._distrust(1, f"version {version[1]}, written by a later Swapper; this one reads 1")
            first = 1
        if not "".join(lines[first:]):
            raise self._distrust(1, "an empty file" if not content else "no service")
        if lines[-1]:
            raise self._distrust(len(lines), f"a half-written line {lines[-1][:60]!r}, without its newline")
        services: dict[str, Mapped] = {}
        for number, line in enumerate(lines[first:-1], first + 1):
            name, mapped = self._parse_line(number, line)
            if name in services:
                raise self._distrust(number, f"service {name} a second time")
            services[name] = mapped
        return services

    def _parse_line(self, number: int, line: str) -> tuple[str, Mapped]:
        fields = line.split(" ")
        if len(fields) != 3 or not SERVICE_NAME.fullmatch(fields[0]):
            raise self._distrust(number, f"{line[:60]!r}, which is not NAME SET GENERATION")
        name, active, generation = fields
        if active not in {PortSet.BLUE, PortSet.GREEN}:
            raise self._distrust(number, f"set {active[:60]!r}, which is neither blue nor green")
        if not _GENERATION.fullmatch(generation):
            raise self._distrust(number, f"generation {generation[:60]!r}, which is not an integer of 0 or more")
        return name, Mapped(PortSet(active), int(generation))

    def _distrust(self, line: int, found: str) -> StateError:
        where = f"{self.path}, line {line}" if line else str(self.path)
        return StateError(
            f"{where}: found {found}; move it away (mv {self.path} {self.path}.bad) "
            "and run `swapper apply`: it adopts what the kernel carries. After a reboot the kernel carries nothing: "
            "then write the file anew, one line NAME SET GENERATION a service, as `game green 7`"
        )
