"""What every page of HTML that is written here is put into: one file that fetches nothing."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Final

__all__ = ["whole"]

STYLE: Final = Path(__file__).with_name("page.css")


def whole(title: str, body: str, *, style: str = "") -> str:
    """A page around a body of HTML, light or dark as its reader likes; `style` adds to what all pages share."""
    shared = STYLE.read_text(encoding="ascii")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{shared}{style}</style>"
        f"<body>{body}</html>\n"
    )
