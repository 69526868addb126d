"""Tables whose last column is a picture of each row: figure and numbers in one, on a phone one block a row."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Row", "plain", "table"]


@dataclass(frozen=True, slots=True)
class Row:
    """A name, the cells beside it, and its picture; all but the picture are plain text."""

    name: str
    cells: tuple[str, ...]
    picture: str = ""
    note: str = ""  # small, under the name


def table(caption: str, head: tuple[str, ...], rows: list[Row], *, pictured: str, scale: str, remark: str = "") -> str:
    """A captioned table; `head` names the columns, `pictured` what the picture shows, `scale` is its axis."""
    small = f"<small>{html.escape(remark)}</small>" if remark else ""
    names = "".join(f'<th scope="col"{_number(place)}>{html.escape(name)}' for place, name in enumerate(head))
    body = "".join(_row(head, row) for row in rows)
    return (
        f'<table class="pictured"><caption>{html.escape(caption)}{small}</caption>'
        f'<thead><tr>{names}<th scope="col" class="picture">{html.escape(pictured)}</thead><tbody>{body}</tbody>'
        f'<tfoot><tr><td colspan="{len(head)}"><td class="picture"><span>{html.escape(pictured)}</span>{scale}</tfoot>'
        "</table>"
    )


def plain(head: tuple[str, ...], rows: Sequence[tuple[str, Sequence[tuple[str, ...]]]]) -> str:
    """A figure's numbers: each cell a value and lines of what it rests on; too wide for the page, it scrolls."""
    names = "".join(f'<th scope="col"{_number(place)}>{html.escape(name)}' for place, name in enumerate(head))
    body = "".join(f'<tr><th scope="row">{html.escape(name)}{"".join(map(_cell, cells))}' for name, cells in rows)
    return f'<div class="scroll"><table><thead><tr>{names}</thead><tbody>{body}</tbody></table></div>'


def _row(head: tuple[str, ...], row: Row) -> str:
    note = f"<small>{html.escape(row.note)}</small>" if row.note else ""
    cells = "".join(
        f'<td class="number" data-is="{html.escape(name)}">{html.escape(cell)}'
        for name, cell in zip(head[1:], row.cells, strict=True)
    )
    return f'<tr><th scope="row">{html.escape(row.name)}{note}{cells}<td class="picture">{row.picture}'


def _cell(lines: tuple[str, ...]) -> str:
    value, *rests = lines
    small = "".join(f"<small>{html.escape(line)}</small>" for line in rests)
    return f'<td class="number">{html.escape(value)}{small}'


def _number(place: int) -> str:
    return ' class="number"' if place else ""
