# SPDX-License-Identifier: Apache-2.0
import pytest

from tral_monai.annotations.nuclei.nucls_classes import AMBIGUOUS, RAW_CLASSES, nucls_class_map, raw_class
from tral_monai.errors import ConfigError


def test_the_papers_seven():
    assert nucls_class_map() == {
        "tumor": "Tum", "lymphocyte": "Lym", "fibroblast": "Str", "vascular_endothelium": "Str", "plasma_cell": "Pla",
        "mitotic_figure": "Mit", "macrophage": "Mac", "neutrophil": "Oth", "eosinophil": "Oth", "myoepithelium": "Oth",
        "ductal_epithelium": "Oth",
    }  # fmt: skip
    assert len(set(nucls_class_map("paper").values())) == 7


def test_main_and_super_are_those_of_the_data_sets_own_tables():
    main, above = nucls_class_map("main"), nucls_class_map("super")
    assert (main["tumor"], main["mitotic_figure"]) == ("tumor_nonMitotic", "tumor_mitotic")
    assert above["tumor"] == above["mitotic_figure"] == "tumor_any"
    assert main["lymphocyte"] == main["plasma_cell"] == above["lymphocyte"] == above["plasma_cell"] == "sTIL"
    assert main["fibroblast"] == main["vascular_endothelium"] == "nonTILnonMQ_stromal"
    assert main["macrophage"] == "macrophage"
    assert above["macrophage"] == above["fibroblast"] == "nonTIL_stromal"
    assert {main[raw] for raw in ("neutrophil", "eosinophil", "myoepithelium", "ductal_epithelium")} == {
        "other_nucleus"
    }


@pytest.mark.parametrize("level", ["paper", "raw", "main", "super"])
def test_every_level_holds_the_same_raw_classes_and_not_the_ambiguous(level):
    assert tuple(nucls_class_map(level)) == RAW_CLASSES
    assert not set(AMBIGUOUS) & set(nucls_class_map(level))


def test_corrections_are_the_class_they_correct_to():
    assert raw_class("correction_plasma_cell") == raw_class(" plasma_cell ") == "plasma_cell"


def test_an_unknown_level_is_refused():
    with pytest.raises(ConfigError, match="class_level of NuCLS must be one of paper, raw, main, super, but is 'fine'"):
        nucls_class_map("fine")
