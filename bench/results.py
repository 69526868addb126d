"""The results of a bench run: one JSON document, written whole, checked when it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["DEFAULT", "ResultsError", "read", "write"]

DEFAULT = Path("results/bench.json")
VERSION = 2
KEYS = {"version", "seed", "environment", "noisy", "missing", "rtts_us", "comparisons", "swaps"}


class ResultsError(Exception):
    """A file of results that cannot be trusted, or cannot be written."""


def write(path: Path, document: dict[str, Any]) -> None:
    """Put a document under `path`; at any instant the old or the new. Raises ResultsError."""
    new = path.with_name(f".{path.name}.{os.getpid()}")  # two runs at once: the later one stays, whole
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps({"version": VERSION, **document}), encoding="utf-8")
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
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
    if not isinstance(document, dict) or document.keys() != KEYS:
        raise ResultsError(f"{path}: is not a result of swapper-bench run")
    if document["version"] != VERSION:
        raise ResultsError(f"{path}: version {document['version']}; this bench reads {VERSION}")
    found: dict[str, Any] = document
    return found
