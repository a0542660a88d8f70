# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tral_monai.errors import ConfigError
from tral_monai.rounds.regions.settings import DEFAULTS, SiteSettings, read_settings


def test_without_settings_there_are_defaults() -> None:
    settings = read_settings({})
    assert settings == SiteSettings()
    assert settings.tasks == ("tissue", "nuclei")
    assert settings.task("tissue") == DEFAULTS["tissue"]
    assert (settings.task("tissue").strategy, settings.task("nuclei").strategy) == ("tri_al_quota", "osal_nd")
    assert (settings.tissue.region_um, settings.nuclei.region_um) == (256.0, 64.0)


def test_text_is_read_as_yaml_and_goes_to_its_task() -> None:
    settings = read_settings(
        {
            "tasks": "tissue",
            "mpp": "0.5",
            "seed": "3",
            "tissue_classes": "Tumor, Stroma",
            "nuclei_classes": "[a, b]",
            "tissue_budget": "4",
            "tissue_region_um": "128",
            "tissue_max_candidates": "null",
            "tissue_warm_start": "false",
            "tissue_overrides": "{max_epochs: 2}",
            "tissue_overlay": "[a.yaml, b.yaml]",
            "nuclei_overlay": "null",
        }
    )
    assert (settings.tasks, settings.mpp, settings.seed) == (("tissue",), 0.5, 3)
    tissue = settings.tissue
    assert (tissue.classes, tissue.budget, tissue.region_um) == (("Tumor", "Stroma"), 4, 128.0)
    assert isinstance(tissue.region_um, float)
    assert (tissue.max_candidates, tissue.warm_start, tissue.overrides) == (None, False, {"max_epochs": 2})
    assert (tissue.overlay, settings.nuclei.overlay) == (("a.yaml", "b.yaml"), None)
    assert settings.nuclei.classes == ("a", "b")
    assert settings.nuclei.budget == 10


def test_a_file_gives_settings_and_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text("")
    config = tmp_path / "site.yaml"
    config.write_text(
        "tissue_budget: 3\nseed: 5\nslides_table: no.csv\ntissue_class_map: rules.yaml\noutput_dir: out\n"
        "tissue_overlay: [rules.yaml, configs/x.yaml]\n"
    )
    settings = read_settings({"config": str(config), "seed": "6"})
    assert (settings.tissue.budget, settings.seed) == (3, 6)
    assert settings.tissue.class_map == str(tmp_path / "rules.yaml")  # beside the file
    assert settings.slides_table == "no.csv"  # not there: as it stands
    assert settings.output_dir == str(tmp_path / "out")
    assert settings.tissue.overlay == (str(tmp_path / "rules.yaml"), "configs/x.yaml")
    config.write_text("")
    assert read_settings({"config": str(config)}) == SiteSettings()


def test_keys_of_the_stock_apps_do_no_harm() -> None:
    assert read_settings({"models": "x", "sam2": "false", "zoo_source": "local"}) == SiteSettings()


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        (
            {"tissue_buget": "3"},
            r"there is no setting 'tissue_buget'; did you mean 'tissue_budget'\? \(settings: config, ",
        ),
        ({"zzzzzz": "3"}, r"there is no setting 'zzzzzz' \(settings"),
        ({"tissue_budget": "many"}, r"tissue_budget must be a number, but is 'many'"),
        ({"tissue_budget": "true"}, r"tissue_budget must be a number, but is True"),
        ({"tissue_budget": "2.5"}, r"tissue_budget must be a whole number, but is 2\.5"),
        ({"mpp": ".nan"}, r"mpp must be a number, but is nan"),
        ({"tissue_warm_start": "1"}, r"tissue_warm_start must be true or false, but is 1"),
        ({"tissue_overrides": "[1]"}, r"tissue_overrides must map names to values, .*, but is \[1\]"),
        ({"tissue_classes": "5"}, r"tissue_classes must be a list of names, .*, but is 5"),
        ({"tissue_budget": "null"}, r"tissue_budget must have a value, but is null"),
        ({"tissue_budget": "{a: [b"}, r"--conf tissue_budget: '\{a: \[b' is not valid YAML"),
        ({"tasks": "tissue, cells"}, r"tasks must be tissue, nuclei or both, but is \['tissue', 'cells'\]"),
        ({"tasks": "[]"}, r"tasks must be tissue, nuclei or both"),
        ({"tissue_classes": "a, a"}, r"tissue_classes must be different names, but are \['a', 'a'\]"),
        ({"nuclei_classes": "a,,b"}, r"nuclei_classes must be different names"),
        ({"mpp": "0"}, r"mpp must lie between 0\.01 and 100, but is 0"),
        ({"val_fraction": "1"}, r"val_fraction must lie between 0 and 0\.9, but is 1"),
        ({"reserve_minutes": "0"}, r"reserve_minutes must lie between 0\.01 and 10080, but is 0"),
        ({"nuclei_budget": "0"}, r"nuclei_budget must lie between 1 and 100000, but is 0"),
        ({"tissue_val_budget": "-1"}, r"tissue_val_budget must lie between 0 and 100000, but is -1"),
        ({"tissue_region_um": "1"}, r"tissue_region_um must lie between 8 and 20000, but is 1"),
        ({"tissue_max_candidates": "3"}, r"tissue_max_candidates must lie between 10 and 1e\+07, but is 3"),
        ({"tissue_publish_tolerance": "2"}, r"tissue_publish_tolerance must lie between 0 and 1, but is 2"),
        (
            {"config": "no.yaml"},
            r"settings file no\.yaml: cannot be read \(No such file or directory\); check the path",
        ),
    ],
)
def test_a_wrong_setting_is_explained(conf: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(conf)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", r"settings file s\.yaml: not valid YAML"),
        ("- a\n", r"settings file s\.yaml: expected 'setting: value' lines, but found \['a'\]"),
        ("budget: 3\n", r"there is no setting 'budget'"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings({"config": str(path)})
