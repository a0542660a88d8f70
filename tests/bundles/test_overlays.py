# SPDX-License-Identifier: Apache-2.0
"""Overlays load on top of the configuration that they are for, and select what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from tests.bundles.bundle_files import BLADDER, BUNDLE, CONFIGS, OVERLAYS, meant_for, read
from tral_monai.rounds.oracles import ArchiveOracle, ClassRequestOracle

FOLDER = OVERLAYS[0].parent
ACTIVE_LEARNING = CONFIGS / "active_learning.yaml"

# The arms of Fuster et al. 2023 with who answers them, and the controls that the paper lacks.
ARMS = {
    "tri_al_iter": ("tri_al_iter", ClassRequestOracle),
    "tri_al_ood": ("tri_al_ood", ClassRequestOracle),
    "tri_al_entropy": ("tri_al_entropy", ClassRequestOracle),
    "tri_al_quota": ("tri_al_quota", ArchiveOracle),
    "balanced": ("balanced", ClassRequestOracle),
    "random": ("random", ArchiveOracle),
    **{f"supervised_{percent}": ("random", ArchiveOracle) for percent in (20, 40, 60, 80, 100)},
}


@pytest.fixture(scope="module")
def parser_of(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("overlays")

    def parser(*overlays: str, config: Path = ACTIVE_LEARNING, **overrides: Any) -> ConfigParser:
        parsed = ConfigParser()
        parsed.read_config([str(config), *(str(FOLDER / f"{name}.yaml") for name in overlays)])
        parsed.update({"bundle_root": str(BUNDLE), "cohort": str(tiny_cohort), "output_dir": str(folder), **overrides})
        parsed.parse(reset=True)
        return parsed

    return parser


def test_every_arm_is_tested():
    others = {"paper", "cpu", "cpu_finetune", "colon_polyp", "dense_context", "tri_cnn_no_adaptation"}
    assert {path.stem for path in OVERLAYS} == set(ARMS) | others


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
def test_it_loads_with_the_configuration_that_it_is_for(path, parser_of):
    for config in meant_for(path):
        parsed = parser_of(path.stem, config=config)
        wanted = {name: value for name, value in read(path).items() if name != "output_dir"}
        assert {name: parsed.get_parsed_content(name) for name in wanted} == wanted


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_selects_its_strategy_and_oracle(arm, parser_of):
    parsed = parser_of("cpu", "colon_polyp", arm)
    name, oracle = ARMS[arm]
    assert parsed.get_parsed_content("chosen_strategy").name == name
    assert type(parsed.get_parsed_content("chosen_oracle")) is oracle


@pytest.mark.parametrize(("percent", "share"), [(20, 0.2), (40, 0.4), (60, 0.6), (80, 0.8), (100, 1.0)])
def test_a_supervised_arm_is_one_training_on_its_share_of_all(percent, share, parser_of, tmp_path):
    parsed = parser_of("cpu", "colon_polyp", f"supervised_{percent}", output_dir=str(tmp_path))
    engine = parsed.get_parsed_content("engine")
    (initial,) = (h for h in parsed.get_parsed_content("handlers") if type(h).__name__ == "InitialLabels")
    initial(engine)
    pool = parsed.get_parsed_content("data").pool
    assert len(engine.ledger.labels(before_round=1)) == round(share * len(pool))
    assert engine.rounds == 1


def test_the_paper_has_six_bladder_classes(parser_of, tmp_path):
    parsed = parser_of("paper", output_dir=str(tmp_path))
    data = parsed.get_parsed_content("data")
    assert data.classes == BLADDER
    assert data.info()["class_colors"]["Urothelium"] == [245, 130, 48]
    assert data.info()["index_settings"] == {
        **{"coverage": 0.7, "stride_px": 128, "cap_per_slide_and_class": 1000, "tissue_method": "paper", "seed": 0}
    }


def test_the_paper_trains_with_its_own_settings():
    defaults = read(ACTIVE_LEARNING) | read(FOLDER / "paper.yaml")
    # Fuster et al. 2023, section III.
    assert (defaults["learning_rate"], defaults["optimizer_name"], defaults["patience"]) == (1.5e-4, "SGD", 5)
    assert (defaults["rounds"], defaults["budget"], defaults["initial_per_class"]) == (5, 20_000, 25_000)
    assert (defaults["backbone"], defaults["hidden"], defaults["frozen"]) == ("vgg16", [4096, 4096], False)
    assert (defaults["augment"], defaults["stain_normalization"], defaults["warm_start"]) == (False, False, True)


def test_no_adaptation_is_measured_on_the_tiles_of_the_papers_runs():
    without, paper = read(FOLDER / "tri_cnn_no_adaptation.yaml"), read(FOLDER / "paper.yaml")
    for name in ("class_map", "cap_per_slide_and_class", "tissue_method"):
        assert without[name] == paper[name]


def test_the_bladder_map_reaches_the_evaluation(parser_of, small_checkpoint, tmp_path):
    parsed = parser_of(
        "tri_cnn_no_adaptation",
        config=CONFIGS / "evaluate.yaml",
        output_dir=str(tmp_path),
        checkpoint=str(small_checkpoint),
    )
    dataset = parsed.get_parsed_content("dataset")
    assert dataset.classes == BLADDER
    assert set(dataset.table["split"]) == {"test"}
    assert sorted(set(dataset.table["class"])) == ["Blood", "Damaged", "Muscle", "Stroma", "Urothelium"]
