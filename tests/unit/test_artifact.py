"""An archive is laid out inside its folder, or refused; nothing that it holds leads elsewhere."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapper.artifact import digest, unpack
from swapper.errors import FetchError

if TYPE_CHECKING:
    from pathlib import Path

REGULAR, FOLDER, LINK, HARD_LINK, FIFO = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, b"6"


def tar(path: Path, *members: tuple[str, bytes, int, bytes | str]) -> Path:
    """A tar of (name, type, mode, content or target)."""
    with tarfile.open(path, "w:gz" if path.suffix != ".tar" else "w") as archive:
        for name, kind, mode, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, mode
            if isinstance(content, str):
                member.linkname = content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path: Path, *members: tuple[str, int, bytes]) -> Path:
    """A zip of (name, st_mode or 0, content)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mode, content in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16 | 0x20  # the file attribute of Windows
            archive.writestr(member, content)
    return path


def laid_out(folder: Path) -> dict[str, str]:
    """Every path in a folder with its mode, or the target of a link."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}"
        if path.is_symlink()
        else f"{path.stat().st_mode & 0o7777:o}"
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("name", ["game.tar", "game.tar.gz", "game.tgz"])
def test_a_tar_keeps_its_files_and_links_but_no_special_modes(tmp_path: Path, name: str) -> None:
    archive = tar(
        tmp_path / name,
        ("./bin/game", REGULAR, 0o4777, b"binary"),
        ("bin/latest", LINK, 0o777, "game"),
        ("again", HARD_LINK, 0o644, "./bin/game"),
        ("data", FOLDER, 0o700, b""),
        ("data/map", REGULAR, 0o640, b"map"),
    )
    unpack(archive, tmp_path / "files")
    assert laid_out(tmp_path / "files") == {
        "again": "644",
        "bin/game": "755",
        "bin/latest": "-> game",
        "data/map": "640",
    }
    assert (tmp_path / "files/again").read_bytes() == b"binary"


def test_a_zip_keeps_its_files_and_links_and_what_can_be_run(tmp_path: Path) -> None:
    archive = zipped(
        tmp_path / "game.zip",
        ("bin/game", stat.S_IFREG | 0o777, b"binary"),
        ("bin/latest", stat.S_IFLNK | 0o777, b"game"),
        ("empty/", stat.S_IFDIR | 0o755, b""),
        ("from windows", 0, b"text"),
    )
    unpack(archive, tmp_path / "files")
    assert laid_out(tmp_path / "files") == {"bin/game": "755", "bin/latest": "-> game", "from windows": "644"}
    assert (tmp_path / "files/empty").is_dir()


@pytest.mark.parametrize(
    ("member", "found"),
    [
        (("../out", REGULAR, 0o644, b"x"), "a path that leads out"),
        (("a/../../out", REGULAR, 0o644, b"x"), "a path that leads out"),
        (("/tmp/out", REGULAR, 0o644, b"x"), "a path that leads out"),  # noqa: S108 - a name in an archive
        (("link", LINK, 0o777, "../out"), "a path that leads out"),
        (("link", LINK, 0o777, "/etc"), "a path that leads out"),
        (("hard", HARD_LINK, 0o644, "/etc/passwd"), "a link to what is not in the archive"),
        (("pipe", FIFO, 0o644, b""), "neither a file, a folder nor a link"),
        (("disk", tarfile.BLKTYPE, 0o644, b""), "neither a file, a folder nor a link"),
    ],
)
def test_a_tar_that_leads_elsewhere_is_refused(
    tmp_path: Path, member: tuple[str, bytes, int, bytes | str], found: str
) -> None:
    with pytest.raises(FetchError, match=found):
        unpack(tar(tmp_path / "bad.tar", member), tmp_path / "files")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "member", [("../out", 0, b"x"), ("/out", 0, b"x"), ("link", stat.S_IFLNK | 0o777, b"../../out")]
)
def test_a_zip_that_leads_elsewhere_is_refused(tmp_path: Path, member: tuple[str, int, bytes]) -> None:
    with pytest.raises(FetchError, match="a path that leads out"):
        unpack(zipped(tmp_path / "bad.zip", member), tmp_path / "files")


def test_nothing_is_written_through_a_link_of_the_archive(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    archive = tar(
        tmp_path / "bad.tar",
        ("here", LINK, 0o777, "."),
        ("here/up", LINK, 0o777, "here"),
        ("here/up/file", REGULAR, 0o644, b"x"),
    )
    with pytest.raises(FileExistsError):
        unpack(archive, tmp_path / "files")


@settings(deadline=None)  # an example waits for the disk
@given(at=st.integers(0, 400), value=st.binary(min_size=1, max_size=8), kind=st.sampled_from([".zip", ".tgz", ".tar"]))
def test_a_damaged_archive_is_refused_or_unpacked_but_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: bytes, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    archive = folder / f"game{kind}"
    content = os.urandom(64)
    if kind == ".zip":
        zipped(archive, ("a", stat.S_IFREG | 0o755, content), ("b", stat.S_IFLNK | 0o777, b"a"))
    else:
        tar(archive, ("a", REGULAR, 0o755, content), ("b", LINK, 0o777, "a"))
    damaged = bytearray(archive.read_bytes())
    damaged[at : at + len(value)] = value
    archive.write_bytes(damaged)
    with contextlib.suppress(FetchError, OSError):
        unpack(archive, folder / "files")
    assert {path.name for path in folder.iterdir()} <= {archive.name, "files"}


def test_the_digest_of_a_folder_tells_any_change(tmp_path: Path) -> None:
    folder = tmp_path / "game"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    seen = {digest(folder)}
    (folder / "a").write_bytes(b"2")
    seen.add(digest(folder))
    (folder / "a").rename(folder / "b")
    seen.add(digest(folder))
    (folder / "a").symlink_to("b")
    seen.add(digest(folder))
    assert len(seen) == 4
    assert digest(folder) in seen
