# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tests.rounds.regions.small_site import make_site
from tral_monai.errors import LedgerError
from tral_monai.rounds.regions.identity import check_identity, site_identity


def test_a_ledger_belongs_to_its_classes(tmp_path: Path) -> None:
    task = make_site(tmp_path).tasks["tissue"]
    other = make_site(tmp_path, tissue_classes="Fat").tasks["tissue"]
    with task.ledger() as ledger:
        check_identity(other, ledger)  # nothing was asked yet
        ledger.begin(site_identity(task))
        check_identity(task, ledger)
        with pytest.raises(LedgerError, match=r"tissue rounds .*classes: \['Tumor', 'Stroma'\], now \['Fat'\]"):
            check_identity(other, ledger)
