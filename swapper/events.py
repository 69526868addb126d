"""GitHub's `release` event, and which of them deploy a service. Pure: bytes in, values out.

https://docs.github.com/en/webhooks/webhook-events-and-payloads#release
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from swapper.recipe import Webhook

__all__ = ["MalformedError", "ReleaseEvent", "parse", "wants"]

_DEPLOYABLE_TAG = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}")  # it becomes an argument and a folder's name

Kind = TypeVar("Kind", str, bool)


class MalformedError(Exception):
    """A body that is not a release event."""


@dataclass(frozen=True, slots=True)
class ReleaseEvent:
    """What happened to which release."""

    action: str
    repository: str  # owner/name
    tag: str
    draft: bool
    prerelease: bool


def parse(body: bytes) -> ReleaseEvent:
    """The event in a delivery's body. Raises MalformedError if it is not one."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedError("not JSON") from error
    release = _table(document, "release")
    return ReleaseEvent(
        action=_field(document, "action", str),
        repository=_field(_table(document, "repository"), "full_name", str),
        tag=_field(release, "tag_name", str),
        draft=_field(release, "draft", bool),
        prerelease=_field(release, "prerelease", bool),
    )


def wants(webhook: Webhook, event: ReleaseEvent) -> bool:
    """Whether this event deploys a service with this webhook. A prerelease has to be asked for, a draft cannot be."""
    return (
        event.action in webhook.actions
        and not event.draft
        and (not event.prerelease or "prereleased" in webhook.actions)
        and event.repository.lower() in {repository.lower() for repository in webhook.repositories}
        and _DEPLOYABLE_TAG.fullmatch(event.tag) is not None
        and any(fnmatchcase(event.tag, pattern) for pattern in webhook.tags)
    )


def _table(document: object, name: str) -> dict[str, object]:
    value = document.get(name) if isinstance(document, dict) else None
    if not isinstance(value, dict):
        raise MalformedError(f"{name} is not an object")
    return value


def _field(table: dict[str, object], name: str, kind: type[Kind]) -> Kind:
    value = table.get(name)
    if not isinstance(value, kind):
        raise MalformedError(f"{name} is not a {kind.__name__}")
    return value
