# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's sessions (pictures that a client uploads to infer on), kept to their own folder."""

from __future__ import annotations

import re
from typing import Any

from monailabel.utils.sessions import Sessions

from tral_monai.errors import UnknownItemError

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class OwnFolderSessions(Sessions):
    """Sessions whose ids cannot lead out of their folder."""

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """A session by its id.

        Raises:
            UnknownItemError: the id is none that this server gives.
        """
        if not _ID.fullmatch(session_id):
            raise UnknownItemError(f"there is no session '{session_id}'")
        return super().get_session(session_id, update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """Remove a session.

        Raises:
            UnknownItemError: the id is none that this server gives.
        """
        if not _ID.fullmatch(session_id):
            raise UnknownItemError(f"there is no session '{session_id}'")
        super().remove_session(session_id)
