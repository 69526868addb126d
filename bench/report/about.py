"""What a run was made of and what it lacks: the reader's means to doubt it, and to make it again."""

from __future__ import annotations

import html
from typing import Any

__all__ = ["doubts", "origin", "section"]


def doubts(document: dict[str, Any]) -> list[str]:
    """What a reader has to know before any figure: a busy machine, what is missing, what failed; plain text."""
    noise = document["noise"]
    found = [f"No verdict on latency: {noise['why']}"] if noise["busy"] else []
    found += [f"Without {name}: {_first_line(why)}" for name, why in document["missing"].items()]
    return found + [f"Failed: {step}: {_first_line(why)}" for step, why in document["failed"].items()]


def origin(document: dict[str, Any]) -> str:
    """Where and how it was measured, in a sentence of plain text."""
    environment, options = document["environment"], document["options"]
    run = "a quick run" if options["quick"] else f"{options['rounds']} rounds"
    return (
        f"Linux {environment['kernel']}, {environment['cpu'] or environment['machine']}, {environment['cpus']} CPUs; "
        f"{run}, seed {options['seed']}."
    )


def section(document: dict[str, Any]) -> str:
    """Everything about the machine and the run, and in full why something is missing."""
    why = {**document["missing"], **document["failed"]}
    reasons = "".join(f"<dt>{html.escape(name)}<dd><pre>{html.escape(text)}</pre>" for name, text in why.items())
    lacking = f"<h3>Missing or failed</h3><dl>{reasons}</dl>" if reasons else ""
    # The load of every single step is for whoever doubts a figure: the document has it, the page what it comes to.
    environment = {name: value for name, value in document["environment"].items() if name != "load"}
    facts = {"options": document["options"], "environment": environment, "noise": document["noise"]}
    tables = "".join(f"<h3>{title.capitalize()}</h3>{_facts(values)}" for title, values in facts.items())
    return f'<section id="about"><h2>How it was measured</h2>{lacking}{tables}</section>'


def _facts(values: dict[str, Any]) -> str:
    rows = "".join(f'<tr><th scope="row">{html.escape(name)}<td>{text}' for name, text in _flat(values))
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as a list, the way to each joined into its name."""
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found += _flat(value, f"{name}, ")
        else:
            found.append((name, html.escape(_said(value))))
    return found


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value in (None, "") else str(value)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
