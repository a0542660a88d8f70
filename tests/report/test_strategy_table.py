# SPDX-License-Identifier: Apache-2.0
import pandas as pd
import pytest

from tral_monai.errors import ConfigError
from tral_monai.report.strategy_table import strategy_table


def write_run(folder, name, macro):
    run = folder / name
    run.mkdir()
    pd.DataFrame(
        {
            "round": [1, 1, 2, 2],
            "split": ["val", "test", "val", "test"],
            "labels": [10, 10, 30, 30],
            "Stroma_f1": [0.1, 0.2, 0.3, 0.4],
            "f1_micro": [0.5, 0.5, 0.5, 0.5],
            "f1_macro": [0.9, macro[0], 0.9, macro[1]],
        }
    ).to_csv(run / "summary.csv", index=False)
    return run


def test_means_deviations_and_areas_worked_out_by_hand(tmp_path):
    runs = [
        write_run(tmp_path, "random_seed0", (0.2, 0.4)),
        write_run(tmp_path, "random_seed1", (0.4, 0.6)),
        write_run(tmp_path, "tri_al_iter_seed0", (0.5, 0.7)),
    ]
    table, markdown = strategy_table(runs)
    assert table["area"].tolist() == pytest.approx([0.3, 0.5, 0.6])
    lines = markdown.splitlines()
    assert lines[0] == "| strategy | seeds | labels | Stroma | f1_micro | f1_macro | area |"
    # The better strategy comes first; one seed has no deviation. 0.4 and 0.6: mean 0.5, deviation 0.1414.
    assert lines[2] == "| `tri_al_iter` | 1 | 30 | 40.0 | 50.0 | 70.0 | 60.0 |"
    assert lines[3] == "| `random` | 2 | 30 | 40.0 ± 0.0 | 50.0 ± 0.0 | 50.0 ± 14.1 | 40.0 ± 14.1 |"


def test_bad_folders(tmp_path):
    (tmp_path / "random_seed3").mkdir()
    with pytest.raises(ConfigError, match="must be called <strategy>_seed<number>, but is 'random'"):
        strategy_table([tmp_path / "random"])
    with pytest.raises(ConfigError, match=r"random_seed3 has no summary.csv"):
        strategy_table([tmp_path / "random_seed3"])
    with pytest.raises(ConfigError, match="not evaluated on split 'pool'"):
        strategy_table([write_run(tmp_path, "random_seed4", (0.1, 0.2))], split="pool")
