# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tests.bundles.bundle_files import BUNDLES, read
from tral_monai.errors import ConfigError
from tral_monai.inference.export.config_copy import copy_config


@pytest.mark.parametrize("bundle", BUNDLES, ids=str)
@pytest.mark.parametrize("name", ["inference.yaml", "evaluate.yaml"])
def test_only_the_check_is_new(bundle, name, tmp_path):
    copy_config(bundle.config_folder / name, tmp_path / name)
    before, after = read(bundle.config_folder / name), read(tmp_path / name)
    added = after["initialize"].pop(1)  # the command line is checked first
    assert added["_target_"] == "tral_monai.inference.export.sums.check_sums"
    assert after == before


def test_a_configuration_that_does_not_run(tmp_path):
    (tmp_path / "a.yaml").write_text("network_def: null\n")
    with pytest.raises(ConfigError, match=r"a.yaml must have one list 'initialize'"):
        copy_config(tmp_path / "a.yaml", tmp_path / "b.yaml")
