"""The results of a bench run: one JSON document, replaced whole, checked when it is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from swapper.files import replace_file

__all__ = ["DEFAULT", "VERSION", "ResultsError", "read", "write"]

DEFAULT: Final = Path("results/bench.json")
VERSION: Final = 3
KINDS: Final = {
    "version": int,
    "options": dict,
    "environment": dict,
    "noise": dict,
    "missing": dict,
    "failed": dict,
    "measured": dict,
}


class ResultsError(Exception):
    """A file of results that cannot be trusted, or cannot be written."""


def write(path: Path, document: dict[str, Any]) -> None:
    """Put a document under `path`; at any instant the old or the new. Raises ResultsError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"version": VERSION, **document}).encode())
    except OSError as error:
        raise ResultsError(f"{path}: cannot be written: {error.strerror}") from error


def read(path: Path) -> dict[str, Any]:
    """The document under `path`. Raises ResultsError for one that is truncated, foreign, or of another version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultsError(f"{path}: cannot be read: {error.strerror}; make it with: swapper-bench run") from error
    except ValueError as error:
        raise ResultsError(
            f"{path}: is no whole document of JSON ({error}); make it anew: swapper-bench run"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("version"), int):
        raise ResultsError(f"{path}: is not a result of swapper-bench run")
    if document["version"] != VERSION:
        raise ResultsError(f"{path}: version {document['version']}; this bench reads {VERSION}")
    if wrong := [key for key, kind in KINDS.items() if not isinstance(document.get(key), kind)]:
        raise ResultsError(
            f"{path}: is not a result of swapper-bench run: {', '.join(wrong)} missing or of another kind"
        )
    return document
