# SPDX-License-Identifier: Apache-2.0
"""Who sent the request that is being answered: the client's own name where it gives one, else its address."""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import Any

peer: contextvars.ContextVar[str] = contextvars.ContextVar("peer", default="local")
"""Address of the client of the request at hand, set by the server for each request."""

_MAX_LENGTH = 100


def client_name(request: Mapping[str, Any]) -> str | None:
    """The name that the client gave itself (``client_id``, as MONAI Label's own clients send it), or None.

    QuPath gives none.
    """
    name = request.get("client_id")
    return str(name)[:_MAX_LENGTH] if name else None
