# SPDX-License-Identifier: Apache-2.0
"""An ASGI app whose requests run on threads, so that a long one does not keep the others waiting.

MONAI Label's endpoints are ``async`` functions around synchronous work: while one computes, the server's event loop
stands still, and nobody gets even ``/info/``. Here each request gets a thread with an event loop of its own; what it
receives and sends goes through the server's loop.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tral_monai.label_app.client_identity import RequestAtHand, request_at_hand

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_JSON_METHODS = ("POST", "PUT", "PATCH")
_LONG = ("/activelearning", "/batch", "/infer", "/scoring")


class ThreadedApp:
    """Runs another ASGI app's HTTP requests on threads.

    Requests that may take long have threads of their own, so that however many of them wait, ``/info/`` is answered.
    One training is posted after the other, so that the second finds the first.

    A request with a body but without a ``Content-Type`` is taken for JSON: QuPath's extension sends such.

    Args:
        app: the app.
        threads: quick requests at a time; more wait.
        long_threads: long requests at a time.
    """

    def __init__(self, app: AsgiApp, threads: int = 16, long_threads: int = 32) -> None:
        self._app = app
        self._quick = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._long = ThreadPoolExecutor(long_threads, thread_name_prefix="long_request")
        self._trainings = ThreadPoolExecutor(1, thread_name_prefix="train_request")

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = _with_content_type(scope)
        client = scope.get("client")
        request_at_hand.set(RequestAtHand(str(client[0]) if client else "local", scope["method"], scope["path"]))
        loop = asyncio.get_running_loop()

        async def receive_here() -> Message:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(receive()), loop))

        async def send_here(message: Message) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(send(message)), loop))

        context = contextvars.copy_context()
        await loop.run_in_executor(
            self._executor(scope["method"], scope["path"]),
            lambda: context.run(asyncio.run, _awaited(self._app(scope, receive_here, send_here))),
        )

    def _executor(self, method: str, path: str) -> ThreadPoolExecutor:
        if method == "POST" and path.startswith("/train"):
            return self._trainings
        return self._long if method != "HEAD" and path.startswith(_LONG) else self._quick


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _with_content_type(scope: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    headers = scope["headers"]
    if scope["method"] not in _JSON_METHODS or any(name == b"content-type" for name, _ in headers):
        return scope
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
