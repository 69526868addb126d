"""Images from GitHub's releases and from a real registry, and what becomes of old ones."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import shutil
import socket
import tarfile
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.deployed import wait_until
from tests.github_api import GitHubApi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.docker.engines import Contained, Engine

pytestmark = pytest.mark.deploys

FROM_GITHUB = 'source = "github"\nrepository = "owner/game"\nasset = "game-{{tag}}.tar.gz"\napi = "{api}"'
FROM_REGISTRY = (
    'source = "registry"\nimage = "127.0.0.1:5000/game"\nusername = "deployer"\npassword_file = "FOLDER/password"'
)
PASSWORD = "correct-horse"  # noqa: S105 - of a registry that lives as long as a test
HTPASSWD = "deployer:$2b$05$936H/gQwvaGMcZHWlKVU3ewH4t.UltMkzPyAyYhFf4kJC8s8P1yyu\n"
NOWHERE = f"sha256:{'0' * 64}"


class Registry:
    """Debian's `docker-registry` on port 5000 of the engine's host; one user may push and pull."""

    address = "127.0.0.1:5000"
    elsewhere = "localhost:5000"  # the same: what is pushed by this name leaves the engine's own tags alone

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.host = engine.net["host"]
        folder.mkdir()
        (folder / "htpasswd").write_text(HTPASSWD)
        login = base64.b64encode(f"deployer:{PASSWORD}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {self.elsewhere: {"auth": login}}}))
        (folder / "config.yml").write_text(
            f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}/storage\n"
            f"http:\n  addr: {self.address}\n"
            f"auth:\n  htpasswd:\n    realm: test\n    path: {folder}/htpasswd\n"
        )
        with (folder / "registry.log").open("ab") as log:
            self._process = self.host.popen(
                ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=log
            )
        wait_until("the registry", self._listens)

    def push(self, archive: Path, tag: str) -> str:
        """Push the image of an archive as `tag`, and keep nothing of it in the engine; the manifest's digest."""
        loaded = self.engine.docker("load", "-i", str(archive)).stdout.split()[-1]
        name = f"{self.elsewhere}/game:{tag}"
        self.engine.docker("tag", loaded, name)
        said = self.engine.docker("--config", str(self.folder), "push", name).stdout
        self.engine.docker("rmi", name, loaded)
        return str(re.findall(r"digest: (sha256:[0-9a-f]{64})", said)[0])

    def lose_layers(self) -> None:
        """Keep the tags and manifests, but none of the layers' bytes."""
        for path in (self.folder / "storage/docker/registry/v2/blobs").rglob("data"):
            if path.read_bytes()[:1] != b"{":
                path.unlink()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(timeout=10)

    def _listens(self) -> bool:
        with self.host.entered(), socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", 5000)) == 0


@pytest.fixture
def github(engine: Engine) -> Iterator[GitHubApi]:
    with engine.net["host"].entered():  # the sockets stay there
        api = GitHubApi()
        api.__enter__()
    try:
        yield api
    finally:
        api.__exit__()


@pytest.fixture
def released(contained: Contained, github: GitHubApi) -> Contained:
    """A service whose images are assets of GitHub's releases."""
    contained.source = FROM_GITHUB.format(api=github.url)
    contained.configure()
    return contained


def publish(service: Contained, api: GitHubApi, tag: str) -> bytes:
    """Release `tag` on GitHub; the image archive that is its asset."""
    service.build(tag)
    asset = (service.folder / "builds" / f"{tag}.tar.gz").read_bytes()
    api.publish(tag, {f"game-{tag}.tar.gz": asset})
    return asset


@pytest.fixture
def registered(contained: Contained, engine: Engine) -> Iterator[tuple[Contained, Registry]]:
    """A service whose images are in a registry."""
    registry = Registry(engine, contained.folder / "registry")
    try:
        contained.source = FROM_REGISTRY
        contained.configure()
        give_password(contained, PASSWORD)
        yield contained, registry
    finally:
        registry.stop()


def give_password(service: Contained, password: str) -> None:
    path = service.folder / "password"
    path.write_text(password)
    path.chmod(0o600)


def push(service: Contained, registry: Registry, tag: str, *, built: str = "") -> str:
    """Build an image and push it as `tag`; its digest in the registry."""
    service.build(built or tag, made_ns=time.time_ns())  # so that no two share a layer
    return registry.push(service.folder / "builds" / f"{built or tag}.tar.gz", tag)


def images(engine: Engine) -> set[str]:
    """The image tags that the engine has."""
    return set(engine.docker("images", "--format", "{{.Tag}}").stdout.split())


def kept(service: Contained) -> set[str]:
    """The names in the folder of releases, unfinished ones too."""
    return {path.name for path in (service.state / "services/game/releases").iterdir()}


def test_an_image_is_deployed_from_a_github_release_over_a_connection_that_is_cut(
    engine: Engine, released: Contained, github: GitHubApi
) -> None:
    asset = publish(released, github, "v1")
    github.cuts = [len(asset) // 2]
    done = released.deploys("v1")
    assert (done["result"], engine.containers()) == ("done", {"swapper-game-blue": "v1"})
    first, second = github.downloads()
    assert first.headers["Range"] == "bytes=0-"
    assert 0 < int(second.headers["Range"].removeprefix("bytes=").removesuffix("-")) <= len(asset) // 2


def test_an_image_with_another_digest_than_promised_is_never_launched(
    engine: Engine, released: Contained, github: GitHubApi
) -> None:
    publish(released, github, "v1")
    released.deploys("v1")
    publish(released, github, "v2")
    github.lies["game-v2.tar.gz"] = {"digest": NOWHERE}
    done = released.types("deploy", "game", "v2")
    assert (done.returncode, f"the release says {NOWHERE}" in done.stderr) == (1, True)
    assert engine.containers() == {"swapper-game-blue": "v1"}
    assert (kept(released), images(engine)) == ({"v1"}, {"v1"})
    assert released.does("history")["deployments"][0]["result"] == "failed"
    github.lies.clear()
    released.deploys("v2")
    assert engine.containers() == {"swapper-game-green": "v2"}


def test_without_a_name_the_latest_release_is_deployed(engine: Engine, released: Contained, github: GitHubApi) -> None:
    publish(released, github, "v1")
    publish(released, github, "v2")
    receipt = released.does("deploy", "game")
    assert (receipt["release"], engine.containers()) == ("v2", {"swapper-game-blue": "v2"})
    publish(released, github, "v3")
    assert released.does("deploy", "game")["release"] == "v3"
    assert engine.containers() == {"swapper-game-green": "v3"}


def test_an_image_is_deployed_from_a_registry_by_tag_and_by_digest(
    engine: Engine, registered: tuple[Contained, Registry]
) -> None:
    service, registry = registered
    push(service, registry, "v1")
    digest = push(service, registry, "v2")
    by_tag = service.deploys("v1")
    assert by_tag["release"] == f"v1@{by_tag['digest'].removeprefix('sha256:')[:12]}"
    by_digest = service.deploys(digest)
    assert by_digest["release"] == digest.removeprefix("sha256:")[:12]
    assert engine.containers() == {"swapper-game-green": by_digest["release"]}
    image = engine.inspect("swapper-game-green")["Image"]
    assert image == by_digest["digest"]
    assert "TAG=v2" in engine.inspect("swapper-game-green")["Config"]["Env"]
    assert service.does("rollback", "game")["release"] == by_tag["release"]


def test_a_tag_that_has_moved_is_another_release(engine: Engine, registered: tuple[Contained, Registry]) -> None:
    service, registry = registered
    push(service, registry, "latest", built="old")
    first = service.does("deploy", "game")
    push(service, registry, "latest", built="new")
    second = service.does("deploy", "game")
    assert first["release"] != second["release"]
    assert second["release"].startswith("latest@")
    assert "TAG=new" in engine.inspect("swapper-game-green")["Config"]["Env"]
    assert service.does("rollback", "game")["release"] == first["release"]
    assert "TAG=old" in engine.inspect("swapper-game-blue")["Config"]["Env"]


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    engine: Engine, registered: tuple[Contained, Registry]
) -> None:
    service, registry = registered
    push(service, registry, "v1")
    give_password(service, "battery-staple")
    done = service.types("deploy", "game", "v1", "--json", "-v")
    assert done.returncode == 1
    assert "pulling 127.0.0.1:5000/game:v1" in done.stderr
    assert engine.containers() == {}
    give_password(service, PASSWORD)
    service.deploys("v1")
    told = done.stdout + done.stderr + json.dumps(service.does("history"))
    written = "".join(path.read_text() for path in service.state.rglob("*") if path.is_file())
    for secret in ("battery-staple", PASSWORD):
        assert secret not in told + written + json.dumps(engine.inspect("swapper-game-blue"))


def test_an_image_that_does_not_come_whole_is_not_taken_for_the_one_before(
    engine: Engine, registered: tuple[Contained, Registry]
) -> None:
    """A tag has moved and its new image cannot be pulled: that the engine still has the old one is no success."""
    service, registry = registered
    push(service, registry, "latest", built="old")
    old = service.does("deploy", "game")
    push(service, registry, "latest", built="new")
    registry.lose_layers()
    done = service.types("deploy", "game")
    assert (done.returncode, engine.containers()) == (1, {"swapper-game-blue": old["release"]})


def test_five_releases_are_kept_with_their_images_and_one_container(engine: Engine, contained: Contained) -> None:
    for number in range(8):
        contained.build(f"v{number}")
        contained.deploys(f"v{number}")
    newest = {f"v{number}" for number in range(3, 8)}
    assert (kept(contained), images(engine)) == (newest, newest)
    assert engine.containers() == {"swapper-game-green": "v7"}


def test_neither_the_live_release_nor_the_one_before_is_ever_pruned(engine: Engine, contained: Contained) -> None:
    """However many releases were fetched since, and failed."""
    contained.source += "\nkeep = 2"
    contained.configure()
    for tag in ("good1", "good2"):
        contained.build(tag)
        contained.deploys(tag)
    for tag in ("bad1", "bad2", "bad3"):
        contained.build(tag, exit_at_once=1)
        assert contained.types("deploy", "game", tag).returncode == 3
    contained.deploys("good1")
    assert kept(contained) == {"good1", "good2", "bad2", "bad3"}
    assert images(engine) == {"good1", "good2", "bad2", "bad3"}
    assert contained.does("rollback", "game")["release"] == "good2"
    assert engine.containers() == {"swapper-game-green": "good2"}


def test_an_image_that_somebody_removed_is_loaded_again_for_a_rollback(engine: Engine, contained: Contained) -> None:
    """Another service of the same image forgets it, or an operator tidies up: the archive is still there."""
    for tag in ("v1", "v2"):
        contained.build(tag)
        contained.deploys(tag)
    engine.docker("rmi", "swapper-test:v1")
    assert contained.does("rollback", "game")["release"] == "v1"
    assert engine.containers() == {"swapper-game-blue": "v1"}


def retagged(service: Contained, tag: str, *images: str, names: list[list[str]]) -> None:
    """Make the archive of release `tag` of the images of others, with these names for each."""
    manifest: list[Any] = []
    with tarfile.open(service.folder / "builds" / f"{tag}.tar.gz", "w:gz", compresslevel=1) as made:
        for number, (image, its_names) in enumerate(zip(images, names, strict=True)):
            packed = gzip.decompress((service.folder / "builds" / f"{image}.tar.gz").read_bytes())
            with tarfile.open(fileobj=io.BytesIO(packed)) as built:
                for member in built.getmembers():
                    content = built.extractfile(member)
                    assert content is not None
                    if member.name == "manifest.json":
                        (described,) = json.load(content)
                        layers = [f"{number}-{layer}" for layer in described["Layers"]]
                        config = f"{number}-{described['Config']}"
                        manifest.append({"Config": config, "RepoTags": its_names, "Layers": layers})
                    else:
                        member.name = f"{number}-{member.name}"
                        made.addfile(member, content)
        text = json.dumps(manifest).encode()
        member = tarfile.TarInfo("manifest.json")
        member.size = len(text)
        made.addfile(member, io.BytesIO(text))


def names(engine: Engine) -> set[str]:
    """The names of all images; <none> for one without."""
    return set(engine.docker("images", "--all", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())


def test_an_archive_may_give_its_one_image_several_names_which_go_with_it(engine: Engine, contained: Contained) -> None:
    contained.source += "\nkeep = 2"
    contained.configure()
    for tag in ("v1", "v2", "v3", "v4"):
        contained.build(f"built-{tag}")
        retagged(contained, tag, f"built-{tag}", names=[[f"game:{tag}", f"other/game:{tag}"]])
        contained.deploys(tag)
    assert engine.containers() == {"swapper-game-green": "v4"}
    assert names(engine) == {f"{name}:{tag}" for name in ("game", "other/game") for tag in ("v3", "v4")}


@pytest.mark.parametrize("named", [True, False])
def test_nothing_stays_of_an_archive_that_is_refused(engine: Engine, contained: Contained, named: bool) -> None:
    """It holds two images, of which one was here before and stays."""
    for tag in ("v1", "new"):
        contained.build(tag)
    contained.deploys("v1")
    retagged(contained, "v2", "v1", "new", names=[["swapper-test:v1"], ["game:new"] if named else []])
    done = contained.types("deploy", "game", "v2")
    assert (done.returncode, "v2.tar.gz holds 2 images" in done.stderr) == (1, True)
    assert (names(engine), kept(contained)) == ({"swapper-test:v1"}, {"v1"})


def test_an_image_that_an_operator_gave_a_name_stays_and_is_told(engine: Engine, contained: Contained) -> None:
    contained.source += "\nkeep = 2"
    contained.configure()
    for tag in ("v1", "v2", "v3"):
        contained.build(tag)
        if tag == "v3":
            engine.docker("tag", "swapper-test:v1", "mine:golden")
        done = contained.types("deploy", "game", tag)
    assert re.search("v1 stays for now: removing image .*: it has another name; docker rmi mine:golden", done.stderr)
    assert (names(engine) >= {"mine:golden", "swapper-test:v1"}, kept(contained)) == (True, {"v1", "v2", "v3"})
    engine.docker("rmi", "mine:golden")
    contained.build("v4")
    contained.deploys("v4")
    assert (images(engine), kept(contained)) == ({"v3", "v4"}, {"v3", "v4"})


def test_an_image_stays_while_another_service_has_its_release(engine: Engine, contained: Contained) -> None:
    contained.source += "\nkeep = 2"
    contained.configure()
    for tag in ("v1", "v2", "v3"):
        contained.build(tag)
        contained.deploys(tag)
        if tag == "v1":
            shutil.copytree(contained.state / "services/game/releases", contained.state / "services/chat/releases")
    assert (images(engine), kept(contained)) == ({"v1", "v2", "v3"}, {"v2", "v3"})
    shutil.rmtree(contained.state / "services/chat")
