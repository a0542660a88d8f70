# SPDX-License-Identifier: Apache-2.0
"""Files and metadata, as the model zoo's verify_bundle.py checks them."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import verify_metadata

import tral_monai
from tests.bundles.bundle_files import BLADDER, BUNDLES, NUCLEI, TISSUE, Bundle, constants

SCHEMA = Path(__file__).parent / "meta_schema.json"
LARGEST_FILE_BYTES = 25 << 20  # the zoo's limit

every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=str)


def metadata_of(bundle: Bundle) -> dict[str, Any]:
    return json.loads((bundle.config_folder / "metadata.json").read_text())


@pytest.fixture
def metadata(bundle):
    return metadata_of(bundle)


@every_bundle
@pytest.mark.parametrize(
    "name",
    [
        *("LICENSE", "docs/README.md", "docs/data_license.txt", "configs/metadata.json", "configs/logging.conf"),
        *("configs/train.yaml", "configs/evaluate.yaml", "configs/inference.yaml", "configs/active_learning.yaml"),
        "configs/multi_gpu_train.yaml",
    ],
)
def test_the_bundle_has(name, bundle: Bundle):
    assert (bundle.folder / name).is_file()
    assert (bundle.folder / name).stat().st_size > 100


@every_bundle
def test_no_file_is_too_large_or_holds_weights(bundle: Bundle):
    files = [path for path in bundle.folder.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < LARGEST_FILE_BYTES
    assert {path.suffix for path in files} <= {"", ".md", ".txt", ".json", ".yaml", ".conf"}


def verify(metadata: dict[str, object], folder: Path) -> None:
    """MONAI's own check; a schema file that exists is not downloaded."""
    (folder / "metadata.json").write_text(json.dumps(metadata))
    verify_metadata(
        meta_file=str(folder / "metadata.json"),
        filepath=str(SCHEMA),
        hash_val=hashlib.md5(SCHEMA.read_bytes()).hexdigest(),
    )


@every_bundle
def test_metadata_fits_the_schema(metadata, tmp_path):
    verify(metadata, tmp_path)


@every_bundle
@pytest.mark.parametrize(
    "key",
    [
        *("version", "changelog", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
        *("task", "description", "authors", "copyright", "network_data_format"),
    ],
)
def test_the_schema_wants(key, metadata, tmp_path):
    del metadata[key]
    with pytest.raises(ValueError, match=f"'{key}' is a required property"):
        verify(metadata, tmp_path)


@every_bundle
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_channels", "9", "'9' is not of type 'integer'"),
        ("spatial_shape", [0, 128], "0 is less than the minimum of 1"),
        ("dtype", "float", "'float' is not one of"),
        ("value_range", [0, 1, 2], "is too long"),
        ("channel_def", {"red": "0"}, "does not match"),
    ],
)
def test_the_schema_refuses_a_tensor_with(key, value, message, metadata, tmp_path):
    changed = copy.deepcopy(metadata)
    changed["network_data_format"]["inputs"]["image"][key] = value
    with pytest.raises(ValueError, match=message):
        verify(changed, tmp_path)


@every_bundle
def test_the_version_is_in_the_changelog_and_is_the_packages(metadata):
    assert metadata["version"] in metadata["changelog"]
    assert metadata["required_packages_version"]["tral_monai"] == tral_monai.__version__


@pytest.mark.parametrize(("bundle", "channels", "shape"), [(TISSUE, 9, [128, 128]), (NUCLEI, 3, ["*", "*"])], ids=str)
def test_the_image_is_that_of_the_default_training(bundle, channels, shape, metadata):
    image = metadata["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == len(image["channel_def"]) == channels
    assert image["spatial_shape"] == shape
    assert image["value_range"] == [0, 255]


@pytest.mark.parametrize(("bundle", "before"), [(TISSUE, ()), (NUCLEI, ("background",))], ids=str)
def test_the_outputs_are_those_of_the_default_training(bundle, before, metadata):
    pred = metadata["network_data_format"]["outputs"]["pred"]
    classes = tuple(constants(bundle.config_folder / "train.yaml")["classes"])
    assert tuple(pred["channel_def"].values()) == (*before, *classes)
    assert pred["num_channels"] == len(pred["channel_def"])
    assert classes == BLADDER or bundle is not TISSUE


@every_bundle
def test_the_licence_is_the_projects(bundle: Bundle):
    assert (bundle.folder / "LICENSE").read_text().strip() == (bundle.folder.parents[1] / "LICENSE").read_text().strip()
