# SPDX-License-Identifier: Apache-2.0
"""Requests that are not answered: of web pages from elsewhere, under strange names, of parts that do not belong here.

The server asks nobody for a password. Listening on this machine only keeps other machines out, but not the web pages
that a browser on this machine shows: such a page may send requests to 127.0.0.1 (their ``Origin`` gives them away),
also under a name of its own that leads there (``Host``).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CLOSED = {
    "/reload": "the app is not loaded anew while it runs; start the server again",
    "/proxy": "this server passes no request on",
}

AsgiApp = Callable[..., Awaitable[None]]


class RequestGuard:
    """Refuses requests with 403 before anything is done for them.

    Args:
        app: the app that answers the others.
        loopback: whether the server listens on this machine only; then it must also be called by such a name.
        origins: further web origins that may ask, such as ``http://cvat.lab``.
    """

    def __init__(self, app: AsgiApp, *, loopback: bool = True, origins: Collection[str] = ()) -> None:
        self._app, self._loopback = app, loopback
        self._origins = {origin.rstrip("/") for origin in origins}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request, or refuse it."""
        reason = self._refusal(scope) if scope["type"] == "http" else None
        if reason is None:
            await self._app(scope, receive, send)
            return
        body = json.dumps({"detail": reason}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: MutableMapping[str, Any]) -> str | None:
        for closed, reason in _CLOSED.items():
            if scope["path"] == closed or scope["path"].startswith(f"{closed}/"):
                return reason
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if self._loopback and host and _name(f"//{host}") not in LOOPBACK:
            return f"this server listens on its own machine only, but was called '{host}'; call it 127.0.0.1"
        if origin and origin.rstrip("/") not in self._origins and urlsplit(origin).netloc != host:
            return (
                f"web pages of '{origin}' may not use this server; allow it with the environment variable "
                f"MONAI_LABEL_CORS_ORIGINS='[\"{origin}\"]'"
            )
        return None


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
