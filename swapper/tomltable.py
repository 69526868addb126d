"""A TOML table that is being read: every mistake is noted with its key, what was found and what is allowed."""

from __future__ import annotations

import difflib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from enum import StrEnum

__all__ = ["Table", "any_of", "is_port", "shown_as"]

LONGEST_TIMEOUT_S = 86_400
ANY_TEXT = re.compile(r".+", re.DOTALL)
SIZE = re.compile(r"([1-9][0-9]{0,8})([kmgKMG]?)")
_LARGEST = 1e15
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Choice = TypeVar("Choice", bound="StrEnum")


class Table:
    """One TOML table being read: the keys that are asked for are the keys that are allowed.

    A getter answers the default where the key is absent. Where it is wrong it notes the mistake and answers
    None, or the default where nothing else is checked against the value.
    """

    def __init__(self, path: Path, mistakes: list[str], key: str, values: Mapping[str, object]) -> None:
        self.path = path
        self.mistakes = mistakes
        self.key = key
        self.values = values
        self._asked: list[str] = []

    def mistake(self, name: str, found: str, allowed: str) -> None:
        """Note that `name` holds `found`, and what is allowed."""
        shown = name if BARE_KEY.fullmatch(name) else shown_as(name)
        key = f"{self.key}.{shown}" if self.key else shown
        self.mistakes.append(f"{self.path}: {key}: found {found}; allowed: {allowed}")

    def close(self) -> None:
        """Note every key that nobody has asked for."""
        for name in self.values:
            if name not in self._asked:
                near = difflib.get_close_matches(name, self._asked, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                self.mistake(name, f"an unknown key{hint}", ", ".join(self._asked))

    def value(self, name: str) -> object:
        """The raw value, None where there is none."""
        self._asked.append(name)
        return self.values.get(name)

    def table(self, name: str) -> Table | None:
        """A table inside this one."""
        value = self.value(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.mistake(name, shown_as(value), "a table")
            return None
        shown = name if BARE_KEY.fullmatch(name) else shown_as(name)
        return Table(self.path, self.mistakes, f"{self.key}.{shown}" if self.key else shown, value)

    def tables(self, name: str) -> list[Table]:
        """A list of at least one table."""
        value = self.value(name)
        allowed = "a list of at least one { protocol, public, blue, green }"
        if not isinstance(value, list) or not value:
            self.mistake(name, "nothing" if value is None else shown_as(value), allowed)
            return []
        found: list[Table] = []
        for index, item in enumerate(value):
            key = f"{name}[{index}]"
            if isinstance(item, dict):
                found.append(Table(self.path, self.mistakes, f"{self.key}.{key}", item))
            else:
                self.mistakes.append(
                    f"{self.path}: {self.key}.{key}: found {shown_as(item)}; "
                    "allowed: a table { protocol, public, blue, green }"
                )
        return found

    def directory(self, name: str, default: Path) -> Path:
        """An absolute path."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, str) and value.startswith("/") and "\0" not in value:
            return Path(value)
        self.mistake(name, shown_as(value), 'an absolute path, such as "' + str(default) + '"')
        return default

    def choice(
        self, name: str, allowed: Iterable[Choice], default: Choice | None = None, *, required: bool = False
    ) -> Choice | None:
        """One of the allowed values; required says that it has no default."""
        value = self.value(name)
        if value is None and not required:
            return default
        choices = tuple(allowed)
        for choice in choices:
            if value == choice.value:
                return choice
        found = "nothing" if value is None else shown_as(value)
        near = difflib.get_close_matches(value, choices, n=1) if isinstance(value, str) else []
        hint = f" (did you mean {shown_as(near[0])}?)" if near else ""
        self.mistake(name, found + hint, any_of(choices))
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.value(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.mistake(name, shown_as(value), "true or false")
        return default

    def seconds(self, name: str, default: float, *, zero: bool = False) -> float:
        """A duration, above 0; `zero` allows 0 too."""
        allowed = f"seconds, {'0 or more' if zero else 'above 0'} and at most {LONGEST_TIMEOUT_S}"
        value = self.number(name, default, allowed)
        if 0 < value <= LONGEST_TIMEOUT_S or (zero and value == 0):
            return value
        self.mistake(name, shown_as(self.values[name]), allowed)
        return default

    def number(self, name: str, default: float, allowed: str) -> float:
        """A number."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
            return float(value)  # nan and inf compare false
        self.mistake(name, shown_as(value), allowed)
        return default

    def positive(self, name: str, allowed: str) -> float | None:
        """A number above 0, None where there is none."""
        number = self.number(name, 0.0, allowed)
        if number > 0 or name not in self.values:
            return number or None
        if number or self.values[name] == 0:  # not noted yet
            self.mistake(name, shown_as(self.values[name]), allowed)
        return None

    def integer(self, name: str, default: int, *, least: int, most: int) -> int:
        """An integer from `least` to `most`."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.mistake(name, shown_as(value), f"an integer, {least} to {most}")
        return default

    def text(self, name: str, default: str = "", *, rule: re.Pattern[str] = ANY_TEXT, allowed: str = "a text") -> str:
        """A text without control characters that `rule` matches as a whole."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, str) and value and "\0" not in value and rule.fullmatch(value):
            return value
        self.mistake(name, shown_as(value), allowed)
        return default

    def texts(self, name: str, default: tuple[str, ...] = (), *, allowed: str = "a list of texts") -> tuple[str, ...]:
        """A list of at least one text."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, list) and value and all(isinstance(item, str) and "\0" not in item for item in value):
            return tuple(value)
        self.mistake(name, shown_as(value), allowed)
        return default

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        """A table of texts, in the order of the file."""
        table = self.table(name)
        if table is None:
            return ()
        found = []
        for key, value in table.values.items():
            if isinstance(value, str) and "\0" not in value and key and "=" not in key:
                found.append((key, value))
            else:
                table.mistake(key, shown_as(value), "a text, under a name without =")
        return tuple(found)

    def size_bytes(self, name: str, default: int | None = None) -> int | None:
        """A size such as "512m": bytes, or with k, m or g."""
        value = self.value(name)
        if value is None:
            return default
        match = SIZE.fullmatch(value) if isinstance(value, str) else None
        if match:
            return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 50:
            return value
        self.mistake(name, shown_as(value), 'bytes, or a text such as "512m" (k, m, g)')
        return default

    def port(self, name: str) -> int | None:
        """A port number; there is no default."""
        value = self.value(name)
        if is_port(value):
            return value
        self.mistake(name, "nothing" if value is None else shown_as(value), "a port, 1 to 65535")
        return None


def is_port(value: object) -> TypeGuard[int]:
    """Whether it is a port number, 1 to 65535."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535


def any_of(choices: Iterable[StrEnum]) -> str:
    """The choices, as a file would write them."""
    return ", ".join(f'"{choice}"' for choice in choices)


def shown_as(value: object) -> str:
    """What was found, as the file would write it, short enough for one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list():
            text = f"[{', '.join(shown_as(item) for item in value[:3])}{', ...' if len(value) > 3 else ''}]"
        case str():
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            text = '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'
        case int() if abs(value) >= 2**64:  # the interpreter refuses to print a number of 5,000 digits
            return "an integer of more than 64 bits"
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            text = str(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
