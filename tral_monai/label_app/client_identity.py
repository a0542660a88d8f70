# SPDX-License-Identifier: Apache-2.0
"""The request that is being answered: who sent it, and what it asks for."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import Any, NamedTuple


class RequestAtHand(NamedTuple):
    """What the parts of the app may know of the HTTP request, without it being passed through MONAI Label."""

    peer: str = "local"
    method: str = ""
    path: str = ""


_NONE = RequestAtHand()
request_at_hand: contextvars.ContextVar[RequestAtHand] = contextvars.ContextVar("request", default=_NONE)
"""Set by the server for each request."""

_MAX_LENGTH = 100


def client_name(request: Mapping[str, Any]) -> str | None:
    """The name that the client gave itself (``client_id``, as MONAI Label's own clients send it), or None.

    QuPath gives none.
    """
    name = request.get("client_id")
    return str(name)[:_MAX_LENGTH] if name else None


def peer() -> str:
    """Address of the client whose request is being answered."""
    return request_at_hand.get().peer
