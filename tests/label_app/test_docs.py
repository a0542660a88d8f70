# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from tral_monai.rounds.regions.settings import SiteSettings, TaskSettings

PAGE = Path(__file__).parents[2] / "docs" / "annotation.md"


def test_every_setting_stands_in_the_reference_and_no_other() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    own = [field.name for field in dataclasses.fields(SiteSettings) if field.name not in ("tissue", "nuclei")]
    of_task = [field.name for field in dataclasses.fields(TaskSettings)]
    assert sorted(listed) == sorted(["config", *own, *of_task])


def test_the_reference_gives_the_true_defaults() -> None:
    cells = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE))
    site = SiteSettings()
    assert cells["val_fraction"] == f"{site.val_fraction:g}"
    assert cells["reserve_minutes"] == f"{site.reserve_minutes:g}"
    assert cells["strategy"] == f"`{site.tissue.strategy}`, `{site.nuclei.strategy}`"
    assert cells["budget"] == f"{site.tissue.budget}" == f"{site.nuclei.budget}"
    assert cells["val_budget"] == f"{site.tissue.val_budget}" == f"{site.nuclei.val_budget}"
    assert cells["region_um"] == f"{site.tissue.region_um:g}, {site.nuclei.region_um:g}"
    assert cells["max_candidates"] == f"{site.tissue.max_candidates}, {site.nuclei.max_candidates}"
    assert cells["publish_tolerance"] == f"{site.tissue.publish_tolerance:g}"
