# SPDX-License-Identifier: Apache-2.0
"""Where the bundle's files are, and how the tests of this folder read and run them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "bundles" / "pathology_multiscale_tissue_classification"
CONFIGS = BUNDLE / "configs"
OVERLAYS = sorted((ROOT / "configs" / "tri_al").glob("*.yaml"))
BUNDLE_CONFIGS = sorted(CONFIGS.glob("*.yaml"))
CPU = ROOT / "configs" / "tri_al" / "cpu.yaml"

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
    """The bundle's configurations that the first line of an overlay names."""
    first = overlay.read_text(encoding="utf-8").splitlines()[0]
    match = re.match(r"# For: ((?:\w+\.yaml(?:, )?)+)", first)
    assert match, f"{overlay.name} must begin with a line such as '# For: active_learning.yaml', not {first!r}"
    return [CONFIGS / name for name in match[1].split(", ")]


def initialized(files: list[Path], workflow_type: str, **overrides: Any) -> Any:
    """A workflow of the bundle, ready to run."""
    from monai.bundle import ConfigWorkflow

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        workflow = ConfigWorkflow(
            [str(file) for file in files],
            workflow_type=workflow_type,
            logging_file=False,
            **{"bundle_root": str(BUNDLE), "device": "$torch.device('cpu')", **overrides},
        )
        workflow.initialize()
    return workflow
