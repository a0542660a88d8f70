# SPDX-License-Identifier: Apache-2.0
"""What MONAI Label's own web server needs for this app: threads, errors that say what is wrong, loopback by default."""

from __future__ import annotations

import errno
import gc
import json
import logging
import sys
from collections.abc import Collection, Sequence

import pydantic
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from tral_monai.errors import BusyError, OutputError, RoundSpentError, TralError, UnknownItemError
from tral_monai.label_app.request_guard import LOOPBACK, RequestGuard
from tral_monai.label_app.threaded_app import ThreadedApp

logger = logging.getLogger(__name__)

STATUS_OF_ERROR: tuple[tuple[type[Exception], int], ...] = (
    (UnknownItemError, 404),
    (ImageNotFoundException, 404),
    (LabelNotFoundException, 404),
    (RoundSpentError, 409),
    (BusyError, 409),
    (OutputError, 507),
    (TralError, 422),
    (MONAILabelException, 422),
    (json.JSONDecodeError, 422),
    (pydantic.ValidationError, 422),
)
"""HTTP status of each error, the most special first; any other is 500, also with a message."""


def install(app: FastAPI, *, loopback: bool = True, origins: Collection[str] = ()) -> None:
    """Make MONAI Label's web app answer on threads, and every error a status with ``{"detail": sentence}``.

    The app may have started already: its middleware is put together anew at the next request.

    Args:
        app: ``monailabel.app.app``.
        loopback: whether it listens on this machine only.
        origins: web origins whose pages may use it.
    """
    if getattr(app.state, "on_threads", False):
        return
    app.state.on_threads = True
    app.middleware_stack = None
    app.add_middleware(ThreadedApp)  # type: ignore[arg-type,unused-ignore]
    app.add_middleware(RequestGuard, loopback=loopback, origins=origins)  # the last one added is asked first
    for kind, _ in STATUS_OF_ERROR:
        app.add_exception_handler(kind, _answer_error)
    for other in (TypeError, ValueError, Exception):
        app.add_exception_handler(other, _answer_error)


def bind_to_loopback(arguments: Sequence[str] | None = None) -> bool:
    """Let the server that is starting listen on this machine only, unless a host was given.

    MONAI Label listens on all network interfaces by default, and asks nobody for a password. This must run while the
    server starts, before it binds its socket.

    Args:
        arguments: the command line; that of this process where not given.

    Returns:
        Whether it listens on this machine only.
    """
    host = _host(sys.argv[1:] if arguments is None else arguments)
    if host is not None:
        return host in LOOPBACK
    # The configuration is a local variable of uvicorn.run, which starts us: there is no other way to reach it.
    for thing in gc.get_objects():
        if isinstance(thing, uvicorn.Config) and thing.host == "0.0.0.0":
            thing.host = "127.0.0.1"
            logger.warning("Listening on this machine only (127.0.0.1); for others too, start with --host 0.0.0.0")
    return True


def _host(arguments: Sequence[str]) -> str | None:
    """The host that a command line gives, or None."""
    for position, word in enumerate(arguments):
        if word in ("-i", "--host") and position + 1 < len(arguments):
            return arguments[position + 1]
        for start in ("--host=", "-i="):
            if word.startswith(start):
                return word.removeprefix(start)
    return None


async def _answer_error(_: Request, error: Exception) -> JSONResponse:
    for kind, status in STATUS_OF_ERROR:
        if isinstance(error, kind):
            return JSONResponse({"detail": _message(error)}, status_code=status)
    if isinstance(error, (TypeError, ValueError)) and _is_of_the_request(error):
        message = f"a field of the request cannot be used ({error}); see /docs for what each must hold"
        return JSONResponse({"detail": message}, status_code=422)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"the disk of the server is full ({error.filename or 'no file name'}); make room and send it again"
        return JSONResponse({"detail": message}, status_code=507)
    logger.error("unexpected error", exc_info=error)
    message = f"unexpected error {type(error).__name__}: {error}; the server's log (GET /logs/) has the whole story"
    return JSONResponse({"detail": message}, status_code=500)


def _message(error: Exception) -> str:
    text = getattr(error, "msg", None) if isinstance(error, MONAILabelException) else str(error)
    if isinstance(error, json.JSONDecodeError):
        return f"the request is not valid JSON ({error})"
    return str(text) or type(error).__name__


def _is_of_the_request(error: Exception) -> bool:
    """Whether MONAI Label's endpoint itself stumbled, which has only the request in its hands."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and "/monailabel/endpoints/" in trace.tb_frame.f_code.co_filename.replace("\\", "/")
