# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tests.rounds.regions.small_site import CONF
from tral_monai.rounds.regions.class_names import close_class, meaning
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite


@pytest.mark.parametrize(
    ("name", "tissue", "nuclei"),
    [
        ("Tumor", ("class", "Tumor"), ("no rule", "ignored")),
        ("tumor", ("no rule", "ignored"), ("no rule", "ignored")),
        ("Lymphocyte", ("no rule", "ignored"), ("class", "Lymphocyte")),
        ("Other", ("no rule", "ignored"), ("class", "unknown")),
        (" UNKNOWN", ("no rule", "ignored"), ("class", "unknown")),
        ("Ignore*", ("ignored", "ignored"), ("ignored", "ignored")),
        (None, ("no class", "ignored"), ("no class", "ignored")),
        ("", ("no class", "ignored"), ("no class", "ignored")),
    ],
)
def test_what_a_name_means(tmp_path: Path, name: str | None, tissue: tuple[str, str], nuclei: tuple[str, str]) -> None:
    site = AnnotationSite(tmp_path, read_settings(CONF))
    assert meaning(site.task("tissue"), name) == tissue
    assert meaning(site.task("nuclei"), name) == nuclei


def test_rules_decide_before_anything_else(tmp_path: Path) -> None:
    rules = tmp_path / "map.yaml"
    rules.write_text("classes: [A]\nrules: [{match: Other, class: A}, {match: ink, class: null}]\n")
    site = AnnotationSite(tmp_path, read_settings({"tasks": "nuclei", "nuclei_class_map": str(rules)}))
    assert meaning(site.task("nuclei"), "Other") == ("class", "A")
    assert meaning(site.task("nuclei"), "ink") == ("left out", "ignored")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Lymphocyte", ("class", "Lymphocyte")),
        ("Fibroblast", ("class", "unknown")),
        ("lymphocyte", ("no rule", "ignored")),
        ("Lymphocytes", ("no rule", "ignored")),
        ("value 3", ("no rule", "ignored")),  # of a label map that names it not
        ("ignored", ("ignored", "ignored")),
        (None, ("no class", "ignored")),
    ],
)
def test_in_an_open_set_every_other_class_is_unknown(
    tmp_path: Path, name: str | None, expected: tuple[str, str]
) -> None:
    conf = {"tasks": "nuclei", "nuclei_classes": "Tumour, Lymphocyte"}
    assert meaning(AnnotationSite(tmp_path, read_settings(conf)).task("nuclei"), name) == expected
    rules = tmp_path / "map.yaml"
    rules.write_text("classes: [Tumour]\nrules: [{match: Tumour, class: Tumour}]\n")
    mapped = AnnotationSite(tmp_path, read_settings({"tasks": "nuclei", "nuclei_class_map": str(rules)}))
    assert meaning(mapped.task("nuclei"), "Fibroblast") == ("no rule", "ignored")


def test_a_slip_of_the_pen_is_told_from_another_class(tmp_path: Path) -> None:
    conf = {"tasks": "nuclei", "nuclei_classes": "Tumour, Lymphocyte"}
    task = AnnotationSite(tmp_path, read_settings(conf)).task("nuclei")
    assert close_class(task, "tumor") == "Tumour"
    assert close_class(task, "Monocyte") is None
