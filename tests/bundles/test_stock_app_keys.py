# SPDX-License-Identifier: Apache-2.0
"""What MONAI Label's stock app reads of inference.yaml; tests/label_app has the app itself."""

from __future__ import annotations

import pytest
from monai.bundle import ConfigParser
from monai.transforms import Compose

from tests.bundles.bundle_files import BUNDLES, Bundle, read
from tral_monai.inference.polygon_answer import PolygonAnswerd
from tral_monai.inference.region_inferer import RegionDetector, RegionInferer
from tral_monai.inference.region_request import RegionRequestd

every_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=str)


@every_bundle
def test_regions_are_mapped_with_the_settings_of_slides(bundle: Bundle):
    config = read(bundle.config_folder / "inference.yaml")
    of_slides, of_regions = config["mapper"], config["region_mapper"]
    assert of_regions.pop("_mode_") == "callable"
    brought = {"network", "device"}  # the app brings these
    brought |= {"engine", "early_exit", "keep_probabilities"}  # it runs the network as it is, and writes polygons only
    if "auxiliary" in of_slides:
        brought.add("auxiliary")
        own = of_regions.pop("auxiliary")
        # Loaded for every region, so only where it changes a polygon.
        assert own.pop("path") == "$@auxiliary_checkpoint if @known_only else None"
        assert own == {key: value for key, value in config["auxiliary_def"].items() if key != "path"}
    assert of_regions == {key: value for key, value in of_slides.items() if key not in brought}


@every_bundle
def test_the_app_gets_what_it_asks_for_without_loading_the_network(bundle: Bundle):
    # Read as monailabel.tasks.infer.bundle does it; there is no model.pt, so that loading it would fail.
    parser = ConfigParser()
    parser.read_config(str(bundle.config_folder / "inference.yaml"))
    parser.config.update({"bundle_root": str(bundle.folder), "device": "cpu", "use_click": False})
    before, after = (parser.get_parsed_content(name) for name in ("preprocessing", "postprocessing"))
    assert isinstance(before, Compose)
    assert [type(transform) for transform in before.transforms] == [RegionRequestd]
    assert isinstance(after, Compose)
    assert [type(transform) for transform in after.transforms] == [PolygonAnswerd]
    assert isinstance(parser.get_parsed_content("inferer"), RegionInferer)
    assert parser.get_parsed_content("displayable_configs") == {"multi_gpu": False, "max_workers": 1}
    if "detection" in bundle.name:  # by which the app chooses
        assert isinstance(parser.get_parsed_content("detector"), RegionDetector)
        assert parser.get_parsed_content("detector_ops") == []


@every_bundle
def test_a_constant_reaches_the_regions(bundle: Bundle):
    parser = ConfigParser()
    parser.read_config(str(bundle.config_folder / "inference.yaml"))
    parser.config.update({"bundle_root": str(bundle.folder), "mpp": 0.5, "predict_batch_size": 3})
    inferer = parser.get_parsed_content("inferer")
    assert inferer.mpp == 0.5
    assert inferer.mapper.keywords["batch_size"] == 3
