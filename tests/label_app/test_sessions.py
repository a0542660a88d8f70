# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("monailabel")

from tral_monai.errors import UnknownItemError
from tral_monai.label_app.sessions import OwnFolderSessions


def test_a_session_is_found_by_its_id_and_removed(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    sessions = OwnFolderSessions(str(tmp_path / "sessions"))
    session_id, _ = sessions.add_session(str(picture))
    found = sessions.get_session(session_id)
    assert Path(found.image).read_bytes() == b"picture"
    assert Path(found.image).is_relative_to(tmp_path / "sessions")
    sessions.remove_session(session_id)
    assert sessions.get_session(session_id) is None


@pytest.mark.parametrize("session_id", ["../outside", "..", "a/b", "", "a" * 65])
def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path: Path, session_id: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "meta.info").write_text("{}")
    sessions = OwnFolderSessions(str(tmp_path / "sessions"))
    with pytest.raises(UnknownItemError, match="there is no session"):
        sessions.get_session(session_id)
    with pytest.raises(UnknownItemError, match="there is no session"):
        sessions.remove_session(session_id)
    assert (outside / "meta.info").is_file()
