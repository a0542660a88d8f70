# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "nucls_selection_table.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_the_table_of_a_small_folder(tmp_path):
    classes = {
        "a": ["tumor"] * 9 + ["lymphocyte", "fibroblast", "plasma_cell"],
        "b": ["tumor", "lymphocyte", "mitotic_figure"] + ["plasma_cell"] * 10,
        "c": ["fibroblast", "macrophage", "unlabeled"],
    }
    (tmp_path / "fovs.csv").write_text(
        "fovname,xmin,ymin,xmax,ymax\n" + "".join(f"{name},0,0,50,50\n" for name in classes)
    )
    lines = [f"{name},{raw},rectangle,1,1,9,9\n" for name, raws in classes.items() for raw in raws]
    (tmp_path / "annotations.csv").write_text("fovname,raw_classification,type,xmin,ymin,xmax,ymax\n" + "".join(lines))
    done = run(tmp_path, "--output", tmp_path / "table.md", "--seeds", "3", "--fraction", "0.4")
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "table.md").read_text().splitlines()
    assert table[0] == "| 1 of 3 fields | 5+2 known (purity) | 4+3 known (purity) | 3+4 known (purity) |"
    assert table[3] == "| total count | 13 (1.000) | 12 (0.923) | 2 (0.154) |"
    assert table[4] == "| oracle known count | 13 (1.000) | 12 (1.000) | 11 (0.917) |"
    assert table[6] == "| unknown share of classified nuclei | 3.7% | 7.4% | 48.1% |"
    assert table[7] == "| fields with any unknown nucleus | 33.3% | 66.7% | 100.0% |"
    assert "11 (0.917)" in done.stdout


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "expected NuCLS's folders csv/ and rgb/" in done.stderr
    assert "Traceback" not in done.stderr
    assert "how many known nuclei" in run("--help").stdout.lower()
