# SPDX-License-Identifier: Apache-2.0
"""Where the bundles' files are, and how the tests of this folder read and run them."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bundle:
    """A bundle and the folder of overlays on its configurations."""

    folder: Path
    overlay_folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def config_folder(self) -> Path:
        return self.folder / "configs"

    @property
    def configs(self) -> list[Path]:
        return sorted(self.config_folder.glob("*.yaml"))

    @property
    def overlays(self) -> list[Path]:
        return sorted(self.overlay_folder.glob("*.yaml"))

    def __str__(self) -> str:
        return self.overlay_folder.name


TISSUE = Bundle(ROOT / "bundles" / "pathology_multiscale_tissue_classification", ROOT / "configs" / "tri_al")
NUCLEI = Bundle(ROOT / "bundles" / "pathology_open_set_nucleus_detection", ROOT / "configs" / "osal_nd")
BUNDLES = (TISSUE, NUCLEI)

# The tissue bundle's, which the tests directly in this folder are about.
BUNDLE = TISSUE.folder
CONFIGS = TISSUE.config_folder
OVERLAYS = TISSUE.overlays
CPU = TISSUE.overlay_folder / "cpu.yaml"

BLADDER = ("Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
SMALL = {"backbone": "timm:mobilenetv3_small_050", "hidden": []}
"""A network of which a training step takes milliseconds on one core."""


class _NoDuplicates(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"{node.start_mark}: the keys {twice} stand twice")
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """A configuration as plain YAML; ValueError where a key stands twice."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=_NoDuplicates)


def constants(path: Path) -> dict[str, Any]:
    """The entries between the line ``# --- constants`` and the next such line: what overlays may change."""
    (text,) = re.findall(
        r"^# --- constants -+\n(.*?)^# --- ", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return yaml.safe_load(text)


def meant_for(overlay: Path) -> list[Path]:
    """The configurations that the first line of an overlay names, of the bundle that its folder belongs to."""
    first = overlay.read_text(encoding="utf-8").splitlines()[0]
    match = re.match(r"# For: ((?:\w+\.yaml(?:, )?)+)", first)
    assert match, f"{overlay.name} must begin with a line such as '# For: active_learning.yaml', not {first!r}"
    (bundle,) = (bundle for bundle in BUNDLES if bundle.overlay_folder == overlay.parent)
    return [bundle.config_folder / name for name in match[1].split(", ")]


def initialized(files: list[Path], workflow_type: str, **overrides: Any) -> Any:
    """A workflow of the bundle that the first file belongs to, ready to run."""
    from monai.bundle import ConfigWorkflow

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        workflow = ConfigWorkflow(
            [str(file) for file in files],
            workflow_type=workflow_type,
            logging_file=False,
            **{"bundle_root": str(files[0].parents[1]), "device": "$torch.device('cpu')", **overrides},
        )
        workflow.initialize()
    return workflow
