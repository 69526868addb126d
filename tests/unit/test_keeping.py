"""What is in use is never pruned, what a killed command left is, and `current` leads somewhere at any instant."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from swapper.errors import DeployError, LockedError
from swapper.lock import file_lock
from swapper.model import BackendKind
from swapper.recipe import Source, SourceKind
from tests.shelf import Shelf, build, fetched, local


def test_leftovers_of_a_killed_command_go_with_the_next_one(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    for name in (".tmp-v1", ".tmp-v0", ".trash-v0"):
        (shelf.folder / "releases" / name / "files").mkdir(parents=True)
    fetched(shelf, tmp_path, "v1")
    assert shelf.on_disk() == {"v1"}
    (shelf.folder / "releases/.tmp-v3").mkdir()
    shelf.releases.prune(set())
    assert shelf.on_disk() == {"v1"}


def test_a_fetch_under_way_keeps_its_files_and_the_others_out(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    (old,) = fetched(shelf, tmp_path, "v1")
    (shelf.folder / "releases/.tmp-v2").mkdir()
    with file_lock(shelf.folder / ".fetch.lock", wait_s=0):
        with pytest.raises(LockedError):
            fetched(shelf, tmp_path, "v3")
        assert shelf.releases.fetch("v1") == old
        assert shelf.releases.prune(set()) == []
    assert ".tmp-v2" in shelf.on_disk()


def test_current_leads_to_the_activated_release_at_any_instant(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    assert shelf.releases.current() is None
    first, second = fetched(shelf, tmp_path, "v1", "v2")
    shelf.releases.activate(first)
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            current = shelf.releases.current()
            seen.add(current.tag if current else "nothing")

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(100):
        shelf.releases.activate(second)
        shelf.releases.activate(first)
    over.set()
    looking.join()
    assert seen <= {"v1", "v2"}
    assert (shelf.folder / "current").readlink() == Path("releases/v1")
    assert shelf.releases.current() == first


def test_a_current_that_cannot_be_replaced_is_told(tmp_path: Path) -> None:
    shelf = local(tmp_path)
    (release,) = fetched(shelf, tmp_path, "v1")
    (shelf.folder / "current").mkdir()
    with pytest.raises(DeployError, match="current: cannot be replaced: "):
        shelf.releases.activate(release)


def test_the_newest_the_current_and_the_named_releases_survive_a_prune(tmp_path: Path) -> None:
    shelf = local(tmp_path, keep=2)
    first, *_ = fetched(shelf, tmp_path, "v1", "v2", "v3", "v4", "v5", "v6")
    shelf.releases.activate(first)
    assert [release.tag for release in shelf.releases.known()] == ["v6", "v5", "v4", "v3", "v2", "v1"]
    assert shelf.releases.prune({"v3"}) == ["v4", "v2"]
    assert shelf.on_disk() == {"v1", "v3", "v5", "v6"}


def test_a_prune_removes_images_but_none_that_a_kept_release_shares(tmp_path: Path) -> None:
    shelf = local(tmp_path, BackendKind.DOCKER, keep=2)
    first, second, third = fetched(shelf, tmp_path, "v1", "v2", "v3")
    build(tmp_path, "game-v4", b"v1")
    fourth = shelf.releases.fetch("v4")
    assert fourth.image == first.image
    assert shelf.releases.prune(set()) == ["v2", "v1"]
    assert shelf.images.all() == {third.image, first.image}
    assert not shelf.images.exists(second.image)


def test_a_release_whose_image_cannot_be_removed_stays_and_is_told(tmp_path: Path) -> None:
    shelf = local(tmp_path, BackendKind.DOCKER, keep=2)
    first, *_ = fetched(shelf, tmp_path, "v1", "v2", "v3")
    shelf.images.in_use.add(first.image)
    assert shelf.releases.prune(set()) == []
    assert shelf.on_disk() == {"v1", "v2", "v3"}
    assert shelf.said == [f"game: v1 stays for now: {first.image}: in use"]
    shelf.images.in_use.clear()
    assert shelf.releases.prune(set()) == ["v1"]


def test_an_image_stays_as_long_as_another_service_has_a_release_of_it(tmp_path: Path) -> None:
    game, chat = (local(tmp_path, BackendKind.DOCKER, keep=2, state=state) for state in ("game", "chat"))
    (shared,) = fetched(chat, tmp_path, "v1")
    fetched(game, tmp_path, "v1", "v2", "v3")
    assert game.releases.prune(set()) == ["v1"]
    assert game.images.exists(shared.image)
    fetched(chat, tmp_path, "v4", "v5")
    assert chat.releases.prune(set()) == ["v1"]
    assert not game.images.exists(shared.image)


def test_an_image_is_removed_with_all_names_that_its_releases_brought(tmp_path: Path) -> None:
    """As with a registry whose `latest` was the same image as its `v1`."""
    shelf = Shelf(tmp_path, Source(SourceKind.REGISTRY, image="host:5000/game", keep=2), BackendKind.DOCKER)
    contents = {"v1": b"one", "latest": b"one", "stable": b"one", "v2": b"two", "v3": b"three"}
    shelf.images.registry.update({f"host:5000/game:{tag}": content for tag, content in contents.items()})
    first, *_ = [shelf.releases.fetch(tag) for tag in contents]
    assert len(shelf.releases.prune(set())) == 3
    assert (shelf.said, shelf.images.exists(first.image)) == ([], False)
    assert len(shelf.on_disk()) == 2


def test_an_image_that_somebody_gave_a_name_stays_with_its_release_and_is_told(tmp_path: Path) -> None:
    shelf = local(tmp_path, BackendKind.DOCKER, keep=2)
    first, *_ = fetched(shelf, tmp_path, "v1", "v2", "v3")
    shelf.images.names[first.image].add("mine:1")
    assert shelf.releases.prune(set()) == []
    assert shelf.said == [f"game: v1 stays for now: {first.image}: in use"]
