"""The base of a comparison: a revision in a worktree that is gone afterwards."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.gate.base import BaseError, worktree


def git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two revisions, the tag `bare` without a product and HEAD with one; the caller is inside."""
    (tmp_path / "README").write_text("old")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    git(tmp_path, "tag", "bare")
    (tmp_path / "swapper").mkdir()
    (tmp_path / "swapper/__main__.py").write_text("of the base")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Grow")
    (tmp_path / "swapper/__main__.py").write_text("of the head")
    monkeypatch.chdir(tmp_path / "swapper")
    return tmp_path


def worktrees(checkout: Path) -> int:
    return git(checkout, "worktree", "list").count("\n")


def test_a_revision_is_there_for_the_block_alone(checkout: Path) -> None:
    with worktree("HEAD") as tree:
        assert (tree / "swapper/__main__.py").read_text() == "of the base"
        assert worktrees(checkout) == 2
    assert (tree.parent.exists(), worktrees(checkout)) == (False, 1)
    assert (checkout / "swapper/__main__.py").read_text() == "of the head"


def test_an_interrupt_takes_it_away_too(checkout: Path) -> None:
    with pytest.raises(KeyboardInterrupt), worktree("HEAD") as tree:
        raise KeyboardInterrupt
    assert (tree.parent.exists(), worktrees(checkout)) == (False, 1)


@pytest.mark.parametrize(
    ("revision", "why"),
    [
        ("nowhere", "has no revision nowhere: fatal: "),
        ("--all", "has no revision --all: fatal: "),
        ("HEAD:README", "has no revision HEAD:README"),
        ("bare", "bare has no swapper/__main__.py to run"),
    ],
)
def test_a_revision_that_cannot_be_compared_with_is_refused(checkout: Path, revision: str, why: str) -> None:
    with pytest.raises(BaseError, match=why), worktree(revision):
        pass
    assert worktrees(checkout) == 1


def test_elsewhere_than_in_a_checkout_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(BaseError, match="no git checkout to take a base from: fatal: not a git repository"),
        worktree("HEAD"),
    ):
        pass


def test_without_git_it_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BaseError, match="apt-get install git"), worktree("HEAD"):
        pass
