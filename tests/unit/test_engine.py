"""What the engine says in the middle of its progress is heard, and its silence has a limit."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from swapper.engine import EngineImages, client
from swapper.errors import FetchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE = f"sha256:{'1' * 64}"
SILENCE_S = 2.0


@dataclass
class Engine:
    """The part of an engine's API that fetching images takes; it has one image."""

    tags: list[str] = field(default_factory=lambda: ["game:v1"])
    progress: list[dict[str, Any]] = field(default_factory=list)  # of a pull or a load
    silent: bool = False  # at a load, until the test is over
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    engine = Engine()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.endswith("/json"):
                one = {"Id": IMAGE, "RepoTags": engine.tags}
                self._answer([] if path.endswith("/images/json") else one)
            else:
                self._answer({"ApiVersion": "1.43"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if engine.silent:
                engine.over.wait(SILENCE_S)
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in engine.progress:
                text = json.dumps(line).encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, document: object) -> None:
            text = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_port}")
        client.cache_clear()
        try:
            yield engine
        finally:
            engine.over.set()
            server.shutdown()
            client.cache_clear()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "game.tar"
    path.write_bytes(b"an image")
    return path


def test_a_pull_that_fails_on_its_way_is_no_success_though_there_is_an_image_of_that_name(engine: Engine) -> None:
    engine.progress = [{"status": "Pulling from game"}, {"error": "unexpected EOF", "errorDetail": {}}]
    with pytest.raises(FetchError, match="pulling game:v1: the Docker Engine said: unexpected EOF"):
        EngineImages().pull("game:v1", "", "")


@pytest.mark.parametrize("pulled", ["game:v1", "docker.io/library/game:v1", "index.docker.io/library/game:v1"])
def test_the_name_that_a_pull_brings_is_the_one_that_the_engine_shows(engine: Engine, pulled: str) -> None:
    engine.tags.append("mine:1")
    image = EngineImages().pull(pulled, "", "")
    assert (image.id, image.names) == (IMAGE, ("game:v1",))


def test_a_digest_brings_no_name(engine: Engine) -> None:
    assert EngineImages().pull(f"game@{IMAGE}", "", "").names == ()
    assert engine.tags == ["game:v1"]


def test_a_load_that_fails_on_its_way_is_told(engine: Engine, archive: Path) -> None:
    engine.progress = [{"errorDetail": {"message": "no space left"}, "error": "no space left"}]
    with pytest.raises(FetchError, match=r"loading game\.tar: the Docker Engine said: no space left"):
        EngineImages().load(archive)


def test_the_engine_may_be_silent_for_as_long_as_a_load_is_given(engine: Engine, archive: Path) -> None:
    engine.progress, engine.silent = [{"stream": "Loaded image: game:v1\n"}], True
    with pytest.raises(FetchError, match=r"loading game\.tar: .*timed out"):
        EngineImages(load_timeout_s=0.1).load(archive)
    engine.over.set()
    assert EngineImages(load_timeout_s=0.1).load(archive).names == ("game:v1",)
