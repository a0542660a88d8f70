# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.errors import ConfigError
from tral_monai.inference.run_table import RunTable


def test_a_subclass_gives_the_rows() -> None:
    with pytest.raises(NotImplementedError, match=r"RunTable must implement rows\(\)"):
        RunTable("a.csv").rows([])


@pytest.mark.parametrize("name", ["areas.txt", "a/b.csv", "a\\b.csv"])
def test_the_file_name_is_checked(name: str) -> None:
    with pytest.raises(ConfigError, match=r"must be the name of a \.csv file without a folder"):
        RunTable(name)
