"""The page: the answer first, then what it rests on."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any, Final

from bench.report import about, costing, growing, hopping, swapping
from bench.report.summaries import Found
from harness.page import whole

__all__ = ["page"]

STYLE: Final = Path(__file__).with_name("page.css")
TITLE: Final = "What a swap loses, what a hop costs"
HEADINGS: Final = {"swap": "swaps", "hop": "hops", "host": "host", "growth": "growth", "about": "method"}


def page(document: dict[str, Any]) -> str:
    """One self-contained page of HTML for the results of a run, whichever parts of it were measured."""
    found = Found.of(document)
    glances = swapping.glance(found), hopping.glance(found, busy=document["noise"]["busy"])
    answers = "".join(f"<div>{glance}</div>" for glance in glances if glance)
    sections = "".join(part.section(found) for part in (swapping, hopping, costing, growing)) + about.section(document)
    doubts = "".join(f"<li>{html.escape(doubt)}" for doubt in about.doubts(document))
    links = " · ".join(
        f'<a href="#{name}">{text}</a>' for name, text in HEADINGS.items() if f'<section id="{name}">' in sections
    )
    body = (
        f'<header><h1>{TITLE}</h1><p class="origin">{html.escape(about.origin(document))}</p>'
        + (f'<ul class="doubts">{doubts}</ul>' if doubts else "")
        + f'</header><main><div class="glance">{answers}</div><nav aria-label="Sections">{links}</nav>{sections}</main>'
    )
    return whole(TITLE, body, style=STYLE.read_text(encoding="ascii"))
