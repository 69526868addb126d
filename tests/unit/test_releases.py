"""A release is here whole under its name, or not at all."""

from __future__ import annotations

import hashlib
import os
import resource
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapper.errors import FetchError
from swapper.model import BackendKind
from swapper.recipe import Secret, Source, SourceKind
from tests.github_api import REPOSITORY, GitHubApi
from tests.shelf import Shelf, build, fetched, local

TAGS = st.text("abcXYZ019._+-", min_size=1, max_size=128)


def registry(folder: Path, **images: bytes) -> Shelf:
    """Releases that are pulled; `images` by tag."""
    shelf = Shelf(folder, Source(SourceKind.REGISTRY, image="host:5000/game", keep=2), BackendKind.DOCKER)
    shelf.images.registry.update({f"host:5000/game:{tag}": content for tag, content in images.items()})
    return shelf


@contextmanager
def files_of_at_most(limit_bytes: int) -> Iterator[None]:
    """Let every longer write fail, as a full disk would, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_local_file_becomes_a_release_that_can_be_run(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    build(tmp_path, "game-v1")
    release = shelf.releases.fetch("v1")
    assert release.folder == tmp_path / "state/releases/v1"
    assert release.digest == f"sha256:{hashlib.sha256(b'binary').hexdigest()}"
    assert release.image == ""
    assert os.access(release.folder / "files/game-v1", os.X_OK)
    assert {path.name for path in release.folder.iterdir()} == {"files", "release.json"}
    assert shelf.releases.get("v1") == release


def test_a_local_folder_is_copied_with_its_links(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    (tmp_path / "builds/game-v1/bin").mkdir(parents=True)
    (tmp_path / "builds/game-v1/bin/game").write_bytes(b"binary")
    (tmp_path / "builds/game-v1/latest").symlink_to("bin/game")
    files = shelf.releases.fetch("v1").folder / "files"
    assert (files / "latest").readlink() == Path("bin/game")
    assert (files / "latest").read_bytes() == b"binary"


def test_a_local_archive_is_unpacked_for_a_process(tmp_path: Path) -> None:
    shelf = local(tmp_path, name="{tag}.tar.gz")
    with tarfile.open(tmp_path / "builds/v1.tar.gz", "w:gz") as archive:
        archive.add(__file__, "bin/game")
    files = shelf.releases.fetch("v1").folder / "files"
    assert [str(path.relative_to(files)) for path in files.rglob("*")] == ["bin", "bin/game"]


def test_a_local_image_archive_is_loaded_for_docker(tmp_path: Path) -> None:
    shelf = local(tmp_path, BackendKind.DOCKER, name="{tag}.tar")
    build(tmp_path, "v1.tar", b"an image")
    release = shelf.releases.fetch("v1")
    assert release.image == release.digest == f"sha256:{hashlib.sha256(b'an image').hexdigest()}"
    assert shelf.images.all() == {release.image}


def test_an_image_that_somebody_removed_is_loaded_again(tmp_path: Path) -> None:
    shelf = local(tmp_path, BackendKind.DOCKER, name="{tag}.tar")
    archive = build(tmp_path, "v1.tar", b"an image")
    release = shelf.releases.fetch("v1")
    shelf.images.remove(release.image, release.names)
    archive.unlink()
    assert shelf.releases.fetch("v1") == release
    assert shelf.images.exists(release.image)


def test_what_is_already_here_is_not_fetched_again(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    (release,) = fetched(shelf, tmp_path, "v1")
    build(tmp_path, "game-v1", b"built again under the same tag")
    assert shelf.releases.fetch("v1") == release


def test_a_release_that_is_not_whole_is_fetched_again(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    (release,) = fetched(shelf, tmp_path, "v1")
    (release.folder / "release.json").write_text('{"tag": "v')
    assert shelf.releases.get("v1") is None
    assert shelf.releases.known() == []
    again = shelf.releases.fetch("v1")
    assert again.digest == release.digest
    assert shelf.on_disk() == {"v1"}


def test_a_local_source_needs_a_tag_and_says_what_is_not_there(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    with pytest.raises(FetchError, match=r"which release\? name it: swapper deploy game TAG"):
        shelf.releases.fetch(None)
    with pytest.raises(FetchError, match=f"there is no {tmp_path}/builds/game-v1"):
        shelf.releases.fetch("v1")
    assert shelf.releases.known() == []


@pytest.mark.parametrize("tag", ["", ".", "..", ".v1", "-v1", "v/1", "../v1", "v..1", "v1\n", "v 1", "v1\0", "v" * 129])
def test_a_tag_that_could_lead_elsewhere_is_refused(tmp_path: Path, tag: str) -> None:
    shelf = local(tmp_path)
    with pytest.raises(FetchError, match="is not a tag; allowed: "):
        shelf.releases.fetch(tag)
    assert shelf.releases.get(tag) is None
    assert not shelf.folder.exists()


@settings(deadline=None)  # an example waits for the disk
@given(tag=TAGS)
def test_a_release_stays_in_its_folder_whatever_its_tag(tmp_path_factory: pytest.TempPathFactory, tag: str) -> None:
    folder = tmp_path_factory.mktemp("tags")
    shelf = local(folder)
    try:
        (release,) = fetched(shelf, folder, tag)
    except FetchError:
        assert tag[0] in ".-" or ".." in tag
        return
    assert release.folder.parent == folder / "state/releases"
    assert shelf.releases.get(tag) == release


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    build(tmp_path, "game-v1", bytes(100_000))
    (tmp_path / "builds/game-v2").mkdir()
    build(tmp_path, "game-v2/data", bytes(100_000))
    for tag in ("v1", "v2"):
        with (
            files_of_at_most(50_000),
            pytest.raises(FetchError, match=r"cannot be kept in .*/state/releases: .*File too large"),
        ):
            shelf.releases.fetch(tag)
    assert shelf.on_disk() == set()
    assert shelf.releases.fetch("v1").digest


def test_a_tag_of_a_registry_that_moved_is_another_release(tmp_path: Path) -> None:
    shelf = registry(tmp_path, latest=b"one")
    old = shelf.releases.fetch(None)
    shelf.releases.activate(old)
    assert old.tag == f"latest@{old.image.removeprefix('sha256:')[:12]}"
    assert shelf.releases.fetch("latest") == old
    shelf.images.registry["host:5000/game:latest"] = b"two"
    new = shelf.releases.fetch("latest")
    assert new.image != old.image
    assert shelf.releases.current() == old
    assert shelf.releases.fetch(old.tag) == old


def test_a_digest_of_a_registry_is_pulled_once(tmp_path: Path) -> None:
    shelf = registry(tmp_path)
    ref = f"sha256:{'ab' * 32}"
    shelf.images.registry[f"host:5000/game@{ref}"] = b"one"
    release = shelf.releases.fetch(ref)
    assert release.folder.name == release.tag == "abababababab"
    shelf.images.registry.clear()
    assert shelf.releases.fetch(ref) == release


def test_a_registry_is_told_who_asks(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "password").chmod(0o600)
    secret = Secret(file=tmp_path / "password")
    source = Source(SourceKind.REGISTRY, image="game", username="me", password=secret)
    shelf = Shelf(tmp_path, source, BackendKind.DOCKER)
    shelf.images.registry["game:v1"] = b"one"
    shelf.releases.fetch("v1")
    assert shelf.images.logins == [("me", "hunter2")]


def test_a_pull_that_fails_leaves_nothing(tmp_path: Path) -> None:
    shelf = registry(tmp_path)
    with pytest.raises(FetchError, match="host:5000/game:v1: the registry has no such image"):
        shelf.releases.fetch("v1")
    with pytest.raises(FetchError, match="v1@0123456789ab is no longer on this host; deploy its tag or digest"):
        shelf.releases.fetch("v1@0123456789ab")
    assert shelf.releases.known() == []


@pytest.fixture
def api() -> Iterator[GitHubApi]:
    with GitHubApi() as server:
        server.publish("v1", {"game": b"one"})
        yield server


def github(api: GitHubApi, folder: Path) -> Shelf:
    return Shelf(folder, Source(SourceKind.GITHUB, repository=REPOSITORY, asset="game", api=api.url))


def test_the_asset_of_a_release_is_fetched_once(tmp_path: Path, api: GitHubApi) -> None:
    shelf = github(api, tmp_path)
    api.cuts = [1]
    release = shelf.releases.fetch(None)
    assert release.tag == "v1"
    assert (release.folder / "files/game").read_bytes() == b"one"
    asked = len(api.requests)
    assert shelf.releases.fetch("v1") == release
    assert len(api.requests) == asked
    assert shelf.releases.fetch(None) == release
    assert len(api.downloads()) == 2


def test_a_wrong_asset_leaves_nothing_and_can_be_fetched_when_it_is_mended(tmp_path: Path, api: GitHubApi) -> None:
    shelf = github(api, tmp_path)
    api.lies["game"] = {"digest": f"sha256:{'0' * 64}"}
    with pytest.raises(FetchError, match="game: the release says sha256:000"):
        shelf.releases.fetch("v1")
    assert shelf.on_disk() == set()
    api.lies.clear()
    assert shelf.releases.fetch("v1").tag == "v1"


def test_an_api_whose_latest_tag_leads_elsewhere_is_refused(tmp_path: Path, api: GitHubApi) -> None:
    api.publish("../../v2", {"game": b"two"})
    with pytest.raises(FetchError, match=r"'\.\./\.\./v2' is not a tag"):
        github(api, tmp_path).releases.fetch(None)


def test_an_image_for_a_service_without_docker_is_refused(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Source(SourceKind.REGISTRY, image="game"))
    with pytest.raises(FetchError, match=r'an image needs backend\.kind = "docker"'):
        shelf.releases.fetch("v1")
