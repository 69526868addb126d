"""Structured logs: one JSON object a line, on standard error unless told otherwise."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["JsonLines", "event", "start"]


def start(stream: TextIO | None = None, *, level: int = logging.INFO) -> None:
    """Send Swapper's log records from `level` on, and warnings of its libraries, to `stream` as JSON lines."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    # Not lower for libraries: httpx logs each URL, and the one that GitHub redirects to holds a token.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("swapper").setLevel(level)


def event(logger: logging.Logger, name: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log that `name` happened; the fields become keys of its line."""
    logger.log(level, "%s", name, extra={"fields": fields})


class JsonLines(logging.Formatter):
    """A record as `{"time", "level", "event", ...}`: ISO 8601 in UTC, then what `event` was given."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, in ASCII."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
