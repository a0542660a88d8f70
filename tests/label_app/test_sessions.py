# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

pytest.importorskip("monailabel")

from tral_monai.errors import ConfigError, UnknownItemError
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


def test_an_archive_is_not_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as tar:
        member = tarfile.TarInfo("../../escaped.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"bad"))
    sessions = OwnFolderSessions(str(tmp_path / "studies" / "sessions"))
    with pytest.raises(ConfigError, match="archives are not unpacked"):
        sessions.add_session(str(archive), uncompress=True)
    with pytest.raises(UnknownItemError, match="there is no session"):
        sessions.add_session(str(archive), session_id="../out")
    assert list(tmp_path.rglob("escaped.txt")) == []


def test_only_sessions_whose_time_is_over_are_removed(tmp_path: Path) -> None:
    sessions = OwnFolderSessions(str(tmp_path / "sessions"))
    ids = []
    for name in ("old.png", "new.png"):
        (tmp_path / name).write_bytes(b"picture")
        ids.append(sessions.add_session(str(tmp_path / name), expiry=100)[0])
    (tmp_path / "sessions" / "not a session").mkdir()
    note = tmp_path / "sessions" / ids[0] / "meta.info"
    content = json.loads(note.read_text())
    note.write_text(json.dumps({**content, "last_access_ts": content["last_access_ts"] - 101}))
    assert OwnFolderSessions(str(tmp_path / "sessions")).remove_expired() == 1
    assert not (tmp_path / "sessions" / ids[0]).exists()
    assert (tmp_path / "sessions" / ids[1]).is_dir()
    assert (tmp_path / "sessions" / "not a session").is_dir()
