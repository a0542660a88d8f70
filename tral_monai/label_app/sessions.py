# SPDX-License-Identifier: Apache-2.0
"""MONAI Label's sessions (pictures that a client uploads to infer on), kept to their own folder."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from monailabel.utils.sessions import Sessions

from tral_monai.errors import ConfigError, UnknownItemError

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


class OwnFolderSessions(Sessions):
    """Sessions whose ids and contents cannot lead out of their folder."""

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> Any:
        """Keep a picture for a while.

        Args:
            data_file: the picture.
            expiry: seconds to keep it; 0 takes the server's.
            uncompress: must be False.
            session_id: an id to give it; None makes one.

        Raises:
            ConfigError: an archive shall be unpacked: its members may lead anywhere.
            UnknownItemError: the id is none that this server gives.
        """
        if uncompress:
            raise ConfigError("archives are not unpacked here; send the picture itself, without uncompress")
        if session_id is not None:
            _check(session_id)
        return super().add_session(data_file, expiry, False, session_id)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """A session by its id.

        Raises:
            UnknownItemError: the id is none that this server gives.
        """
        _check(session_id)
        return super().get_session(session_id, update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """Remove a session.

        Raises:
            UnknownItemError: the id is none that this server gives.
        """
        _check(session_id)
        super().remove_session(session_id)

    def remove_expired(self) -> int:
        """Remove the sessions whose time is over; how many these were."""
        count, folder = 0, Path(self.store_path)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not entry.is_dir() or not _ID.fullmatch(entry.name):
                continue
            session = self.get_session(entry.name, update_ts=False, fetch_cache=False)
            if session is None or 0 < session.expiry < time.time() - session.last_access_ts:
                self.remove_session(entry.name)
                count += 1
        return count


def _check(session_id: str) -> None:
    if not _ID.fullmatch(session_id):
        raise UnknownItemError(f"there is no session '{session_id}'")
