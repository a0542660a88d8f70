# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tests.rounds.regions.small_site import plain_slide
from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.saved_settings import save_settings, saved_settings, settings_file
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite


def test_settings_come_back_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    plain_slide(studies / "a.tif", side_px=256)
    (tmp_path / "rules.yaml").write_text("classes: [Tumor]\nrules: []\n")
    monkeypatch.chdir(tmp_path)
    conf = {
        "tasks": "tissue",
        "output_dir": "elsewhere",
        "tissue_class_map": "rules.yaml",
        "tissue_overlay": "null",
        "tissue_overrides": "{max_epochs: 3}",
        "tissue_region_um": "64",
    }
    site = AnnotationSite(studies, read_settings(conf))
    path = save_settings(site)
    assert path == settings_file(studies) == studies / "active_learning" / "settings.json"
    monkeypatch.chdir(studies)  # paths do not hang on where a command is started
    saved = saved_settings(studies)
    assert saved == {
        "tasks": ["tissue"],
        "output_dir": str(tmp_path / "elsewhere"),
        "tissue_class_map": str(tmp_path / "rules.yaml"),
        "tissue_overlay": None,
        "tissue_overrides": {"max_epochs": 3},
        "tissue_region_um": 64.0,
    }
    again = read_settings(saved)
    assert again.tissue.overrides == {"max_epochs": 3}
    assert AnnotationSite(studies, again).tasks["tissue"].classes == ("Tumor",)


def test_where_no_server_has_run_nothing_is_saved(tmp_path: Path) -> None:
    assert saved_settings(tmp_path) == {}
    settings_file(tmp_path).parent.mkdir()
    for text, message in (("{", r"settings\.json cannot be read"), ("[]", r"settings\.json holds no settings")):
        settings_file(tmp_path).write_text(text)
        with pytest.raises(ConfigError, match=message):
            saved_settings(tmp_path)
