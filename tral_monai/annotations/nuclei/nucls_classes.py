# SPDX-License-Identifier: Apache-2.0
"""NuCLS's classes: raw (as the pathologists chose them), main, super, and the seven of the OSAL-ND paper."""

from __future__ import annotations

from typing import Literal, get_args

from tral_monai.errors import ConfigError

NuclsLevel = Literal["paper", "raw", "main", "super"]

CORRECTION = "correction_"
"""Prefix of a class that a study coordinator corrected; it says who chose the class, not which one it is."""
AMBIGUOUS = ("unlabeled", "apoptotic_body")
"""Raw classes that NuCLS calls AMBIGUOUS: ignored in training and in testing."""

# raw class: (paper, main, super). The main and super classes are those of the published CSV files. The paper counts
# Tum, Lym, Str, Pla, Mit, Mac and Oth without saying what it joined; here "stromal" are the two raw classes whose
# main class is stromal, and "other" the four whose main class is other.
_MAP: dict[str, tuple[str, str, str]] = {
    "tumor": ("Tum", "tumor_nonMitotic", "tumor_any"),
    "lymphocyte": ("Lym", "sTIL", "sTIL"),
    "fibroblast": ("Str", "nonTILnonMQ_stromal", "nonTIL_stromal"),
    "vascular_endothelium": ("Str", "nonTILnonMQ_stromal", "nonTIL_stromal"),
    "plasma_cell": ("Pla", "sTIL", "sTIL"),
    "mitotic_figure": ("Mit", "tumor_mitotic", "tumor_any"),
    "macrophage": ("Mac", "macrophage", "nonTIL_stromal"),
    "neutrophil": ("Oth", "other_nucleus", "other_nucleus"),
    "eosinophil": ("Oth", "other_nucleus", "other_nucleus"),
    "myoepithelium": ("Oth", "other_nucleus", "other_nucleus"),
    "ductal_epithelium": ("Oth", "other_nucleus", "other_nucleus"),
}

RAW_CLASSES = tuple(_MAP)
"""The raw classes that have a name at every level."""


def nucls_class_map(class_level: NuclsLevel = "paper") -> dict[str, str]:
    """Raw class (without ``correction_``) to its class at a level; the ambiguous ones are not in it.

    Source of main and super: Amgad et al., GigaScience 2022. Source of the seven: OSAL-ND, section 3.

    Raises:
        ConfigError: An unknown level.
    """
    levels = get_args(NuclsLevel)
    if class_level not in levels:
        raise ConfigError(f"class_level of NuCLS must be one of {', '.join(levels)}, but is '{class_level}'")
    if class_level == "raw":
        return {raw: raw for raw in _MAP}
    column = ("paper", "main", "super").index(class_level)
    return {raw: names[column] for raw, names in _MAP.items()}


def raw_class(text: str) -> str:
    """The raw class without the prefix of a correction and without blanks around it."""
    return text.strip().removeprefix(CORRECTION)
