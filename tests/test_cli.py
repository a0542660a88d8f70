# SPDX-License-Identifier: Apache-2.0
import subprocess
import sys

import numpy as np
import pytest
import shapely
from PIL import Image

from tral_monai.__main__ import main
from tral_monai.annotations import Annotation, write_geojson
from tral_monai.data import read_index


@pytest.fixture
def cohort_csv(tmp_path):
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((512, 1024, 3), (200, 120, 170), np.uint8)).save(tmp_path / f"{name}.png")
    tumor = Annotation(shapely.box(0, 0, 256, 256), "Tumor")
    write_geojson(tmp_path / "a.geojson", [tumor, Annotation(shapely.box(256, 0, 512, 128), "Fat [1]")])
    write_geojson(tmp_path / "b.geojson", [tumor, Annotation(shapely.box(0, 0, 9, 9))])
    text = "slide,annotations,patient,split,mpp\na.png,a.geojson,P1,train,0.25\nb.png,b.geojson,P2,val,0.25\n"
    (tmp_path / "cohort.csv").write_text(f"{text}c.png,,P1,pool,0.25\n")
    return tmp_path / "cohort.csv"


def cells(output: str) -> list[list[str]]:
    return [line.replace("│", " ").split() for line in output.splitlines()]


def test_cohort_summarises(cohort_csv, capsys):
    assert main(["cohort", str(cohort_csv), "--index", str(cohort_csv.with_name("i.parquet"))]) == 0
    output = capsys.readouterr().out
    rows = cells(output)
    assert ["train", "1", "1", "1"] in rows  # slides, patients, with annotations
    assert ["pool", "1", "1", "0"] in rows
    assert ["all", "3", "2", "2"] in rows
    # 256 x 256 px at 0.25 um are 0.004 mm2, shown as 0.00; train has 4 tumour tiles and 2 of fat, the pool all 32.
    assert ["Fat", "[1]", "2", "(0.00)", "-", "-"] in rows
    assert ["Tumor", "4", "(0.00)", "4", "(0.00)", "-"] in rows
    assert ["all", "6", "4", "32"] in rows
    assert "Outlines without a class, left out: 1" in output
    assert "No problems." in output
    assert len(read_index(cohort_csv.with_name("i.parquet"))) == 42


def test_cohort_lists_problems_and_says_so_in_its_status(cohort_csv, capsys):
    cohort_csv.with_name("b.geojson").write_text("{")
    assert main(["cohort", str(cohort_csv)]) == 1
    output = capsys.readouterr().out
    assert "skipped b.png: b.geojson, line 1, column 2: not valid JSON" in output


def test_cohort_with_a_class_map(cohort_csv, capsys):
    (cohort_csv.parent / "m.yaml").write_text("classes: [T]\nrules: [{match: umor, class: T}]\nunknown: drop\n")
    assert main(["cohort", str(cohort_csv), "--class-map", str(cohort_csv.parent / "m.yaml"), "--tissue", "none"]) == 0
    assert "Names that the class map leaves out: Fat [1] (1)" in capsys.readouterr().out


def test_errors_are_one_line_without_a_traceback(cohort_csv, capsys):
    assert main(["cohort", str(cohort_csv.with_name("nowhere.csv"))]) == 1
    assert capsys.readouterr().err.startswith("error: cohort ")
    assert main(["cohort", str(cohort_csv), "--coverage", "2"]) == 1
    assert "coverage must be at least 0" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_lists_the_commands(arguments, capsys):
    assert main(arguments) == (0 if arguments else 2)
    assert "cohort    check a cohort CSV" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["cohort", "--help"], ["--help", "cohort"]])
def test_help_of_a_command(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert "--allow-patient-overlap" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["cohorts"], ["--nonsense"], ["cohort"], ["cohort", "x.csv", "--tissue", "otsu"]]
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: python -m tral_monai" in capsys.readouterr().err


def test_the_list_of_commands_loads_none_of_them():
    code = "import sys; from tral_monai.__main__ import main; main(['--help']); print(sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in ("numpy", "pandas", "torch", "tral_monai.cli.cohort"):
        assert f"'{module}'" not in output


def test_cohort_loads_no_torch(cohort_csv):
    code = (
        "import sys; from tral_monai.__main__ import main; "
        f"assert main(['cohort', {str(cohort_csv)!r}]) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
