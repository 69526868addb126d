"""Other revisions of this repository, each in a git worktree for as long as it is compared with."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BaseError", "has_product", "worktree"]


class BaseError(Exception):
    """A revision that nothing can be compared with."""


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """The tree of a revision of the checkout that the caller is in; gone after the block. Raises BaseError."""
    checkout = _git("rev-parse", "--show-toplevel", why="no git checkout to take a base from")
    wanted = f"{revision}^{{commit}}"
    commit = _git("rev-parse", "--verify", "--end-of-options", wanted, why=f"{checkout} has no revision {revision}")
    with tempfile.TemporaryDirectory(prefix="swapper-base-") as folder:
        tree = Path(folder) / "tree"
        try:
            _git("worktree", "add", "--detach", str(tree), commit, why=f"{revision} cannot be checked out")
            if not has_product(tree):
                raise BaseError(f"{revision} has no swapper/__main__.py to run")
            yield tree
        finally:
            # Twice: also one whose making was interrupted, and which is locked therefore.
            subprocess.run(
                ["git", "-C", checkout, "worktree", "remove", "--force", "--force", str(tree)],
                capture_output=True,
                check=False,
            )


def has_product(tree: Path) -> bool:
    """Whether a tree has a `swapper` of its own; one that has not would be measured by this installation's."""
    return (tree / "swapper" / "__main__.py").is_file()


def _git(*words: str, why: str) -> str:
    """What git says. Raises BaseError, which begins with `why`."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BaseError("git is not on this host; bring it with: apt-get install git") from None
    if done.returncode:
        raise BaseError(f"{why}: {done.stderr.strip()}")
    return done.stdout.strip()
