# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator

import pytest

fastapi = pytest.importorskip("fastapi")
uvicorn = pytest.importorskip("uvicorn")

from tral_monai.label_app.client_identity import peer  # noqa: E402
from tral_monai.label_app.threaded_app import ThreadedApp  # noqa: E402


def _web_app() -> object:
    app = fastapi.FastAPI()

    @app.get("/slow")
    async def slow() -> dict[str, str]:
        time.sleep(1.5)  # synchronous work in an async endpoint, as MONAI Label's
        return {"peer": peer()}

    @app.get("/quick")
    async def quick() -> dict[str, str]:
        return {"peer": peer()}

    @app.post("/body")
    async def body(params: dict | None = None) -> dict:  # type: ignore[type-arg]
        return {"got": params}

    @app.get("/long")
    async def long() -> object:
        from fastapi.responses import StreamingResponse

        return StreamingResponse(bytes([65 + number % 26]) * 1000 for number in range(300))

    app.add_middleware(ThreadedApp)
    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = uvicorn.Server(uvicorn.Config(_web_app(), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def _ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    return response.status, response.read()


def test_a_long_request_does_not_keep_a_short_one_waiting(port: int) -> None:
    answers: list[float] = []
    slow = threading.Thread(target=lambda: (_ask(port, "GET", "/slow"), answers.append(time.monotonic())))
    slow.start()
    time.sleep(0.3)
    assert _ask(port, "GET", "/quick") == (200, b'{"peer":"127.0.0.1"}')
    quick = time.monotonic()
    slow.join()
    assert quick < answers[0]


def test_a_body_without_content_type_is_json(port: int) -> None:
    assert _ask(port, "POST", "/body", b'{"image": "a", "patch_size": [1, 2]}') == (
        200,
        b'{"got":{"image":"a","patch_size":[1,2]}}',
    )


def test_a_streamed_answer_arrives_whole(port: int) -> None:
    status, content = _ask(port, "GET", "/long")
    assert status == 200
    assert len(content) == 300_000
    assert content[1000:1001] == b"B"
    assert content[-1:] == bytes([65 + 299 % 26])


def test_the_peer_of_a_request_is_not_seen_by_others(port: int) -> None:
    _ask(port, "GET", "/quick")
    assert peer() == "local"
