"""Deliveries as GitHub's webhooks send them."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json

SECRET = "It's a Secret to Everybody"  # noqa: S105 - the example in GitHub's documentation

_numbers = itertools.count(1)


def release(tag: str = "v1", **changes: object) -> bytes:
    """The body of a `release` event of owner/game; `changes` are to action, repository, draft or prerelease."""
    return json.dumps(
        {
            "action": changes.get("action", "published"),
            "repository": {"full_name": changes.get("repository", "owner/game")},
            "release": {
                "tag_name": tag,
                "draft": changes.get("draft", False),
                "prerelease": changes.get("prerelease", False),
            },
        }
    ).encode()


def headers(body: bytes, *, event: str = "release", delivery: str = "", key: str = SECRET) -> dict[str, str]:
    """The headers of a delivery, signed; with an id of its own unless one is given."""
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery or f"delivery-{next(_numbers)}",
        "X-Hub-Signature-256": "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest(),
    }
