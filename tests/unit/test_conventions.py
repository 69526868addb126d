"""The conventions of the code keep themselves."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("swapper", "harness", "bench")
PURE = (
    "bench/gate/verdict.py",
    "bench/gate/table.py",
    "bench/document.py",
    "bench/noise.py",
    "bench/report/axis.py",
    "bench/report/drawing.py",
    "bench/report/summaries.py",
    "bench/report/words.py",
    "bench/table.py",
    "bench/parts/search.py",
    "swapper/model.py",
    "swapper/errors.py",
    "swapper/drain.py",
    "swapper/events.py",
    "swapper/health.py",
    "swapper/provision.py",
    "swapper/recipe.py",
    "swapper/reconcile.py",
    "harness/ledger.py",
    "harness/pushes.py",
    "harness/expect.py",
    "harness/histogram.py",
    "harness/kernels.py",
    "harness/others.py",
    "harness/pace.py",
    "harness/planes.py",
    "harness/specs.py",
    "harness/wire.py",
    "harness/topology.py",
)
IMPURE = {"os", "socket", "time", "subprocess", "pyroute2", "scapy"}
FILES = sorted(path for name in (*PACKAGES, "tests") for path in (ROOT / name).rglob("*.py"))
PUBLIC = [
    path
    for path in FILES
    if path.relative_to(ROOT).parts[0] in PACKAGES
    and (not path.name.startswith(("_", "test_")) or path.name == "__init__.py")
]
IGNORE = re.compile(r"#\s*(?:ruff:\s*)?(noqa|type:\s*ignore)\b(.*)", re.IGNORECASE)
WITH_REASON = re.compile(r"(?:\s*:\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*|\[[a-z-]+(?:,\s*[a-z-]+)*\])(.*)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> set[str]:
    """The top-level packages that a file imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", PURE)
def test_pure_modules_import_no_effects(path: str) -> None:
    assert not imported(ROOT / path) & IMPURE


@pytest.mark.parametrize("path", [p for p in FILES if name(p).startswith("swapper/")], ids=name)
def test_the_product_knows_neither_harness_nor_bench(path: Path) -> None:
    assert not imported(path) & {"harness", "bench"}


@pytest.mark.parametrize("path", PUBLIC, ids=name)
def test_all_lists_what_is_public(path: Path) -> None:
    defined: set[str] = set()
    bound: set[str] = set()
    listed: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            bound |= names
            if "__all__" in names and node.value is not None:
                listed = ast.literal_eval(node.value)
    assert len(listed) == len(set(listed))
    assert {entry for entry in defined if not entry.startswith("_")} - set(listed) == set()
    assert set(listed) - defined - bound == set()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_ignore_carries_its_code_and_its_reason(path: Path) -> None:
    bare: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        match = IGNORE.search(token.string) if token.type == tokenize.COMMENT else None
        if match:
            rest = WITH_REASON.match(match[2])
            if rest is None or not re.search(r"[a-z]{3}", rest[1]):
                bare.append(f"line {token.start[0]}: {token.string}")
    assert bare == []


def test_dev_runs_every_test_once() -> None:
    dev = (ROOT / "dev").read_text()
    lists = re.findall(r'^(?:SIDE_BY_SIDE|ALONE)="(.*)"$', dev, re.MULTILINE)
    with (ROOT / "pyproject.toml").open("rb") as file:
        paths = tomllib.load(file)["tool"]["pytest"]["ini_options"]["testpaths"]
    assert sorted(" ".join(lists).split()) == sorted(paths)
    runs = re.findall(r"-m pytest \$no_cache (.*) \|\| failed=1", dev)
    assert [run.split("-m ")[-1] for run in runs] == ['"not alone" $SIDE_BY_SIDE', "alone $SIDE_BY_SIDE", "$ALONE"]
