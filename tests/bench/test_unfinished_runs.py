"""A run that is stopped, or has no room for its logs: it leaves nothing behind and passes for no verdict."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.bench

HARNESS = Path(sys.executable).with_name("swapper-harness")
LIGHT = ["--from", "outside", "--family", "4", "--rate", "200"]


def started(mount: str, *words: str | Path) -> subprocess.Popen[str]:
    """The harness with `mount` on /dev/shm, where it keeps the logs of a run."""
    argv = ["unshare", "-m", "sh", "-c", f'mount {mount} /dev/shm && exec "$@"', "sh", HARNESS, "run", *LIGHT, *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_run_that_is_stopped_leaves_no_logs_and_no_verdict(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with started(f"--bind {logs}", "--swaps", "2", "--seconds", "2") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "swap 1 of 2: blue -> green\n"
        assert [path.name.startswith("swapper-") for path in logs.iterdir()] == [True]
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, said, list(logs.iterdir())) == (128 + signal.SIGTERM, "", [])


def test_a_run_without_room_for_its_logs_proves_nothing() -> None:
    with started("-t tmpfs -o nr_inodes=2 none") as process:  # one for the mount, one for the folder of the run
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, "No space left on device" in said) == (3, True)


def test_a_file_that_cannot_be_written_is_a_mistake_and_no_loss(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    broken = ["--dataplane", "stateless", "--engine", "iptables-nft"]  # ends at once, without a verdict
    with started(f"--bind {tmp_path}", *broken, "--json", tmp_path / "file/below") as process:
        _, complaint = process.communicate(timeout=20)
    assert (process.returncode, "cannot be written: " in complaint) == (2, True)
