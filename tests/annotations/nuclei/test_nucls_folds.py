# SPDX-License-Identifier: Apache-2.0
import pytest

from tral_monai.annotations.nuclei.nucls_folds import read_nucls_folds
from tral_monai.errors import AnnotationError


def write(folder, fold, train, test):
    folder.mkdir(parents=True, exist_ok=True)
    for side, slides in (("train", train), ("test", test)):
        lines = [f"{i},{slide},{slide[5:7]},{side},{fold}" for i, slide in enumerate(slides)]
        (folder / f"fold_{fold}_{side}.csv").write_text("\n".join([",slide_name,hospital,type,fold", *lines]) + "\n")


A, B, C = "TCGA-A1-A0SP-DX1", "TCGA-BH-A0B3-DX1", "TCGA-E2-A158-DX1"


def test_the_published_files(tmp_path):
    splits = tmp_path / "train_test_splits"
    write(splits, 1, [A, B], [C])
    write(splits, 2, [C], [A, B])
    write(splits, 999, [A, B, C], [A])
    (splits / "readme.txt").touch()
    folds = read_nucls_folds(tmp_path)
    assert list(folds) == [1, 2, 999]
    assert (folds[1].train, folds[1].test) == ((A, B), (C,))
    assert read_nucls_folds(splits) == folds


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(AnnotationError, match=r"expected fold_1_train\.csv, fold_1_test\.csv"):
        read_nucls_folds(tmp_path)
    write(tmp_path, 1, [A, B], [B])
    with pytest.raises(AnnotationError, match=rf"fold 1 has the slides \['{B}'\] on both sides"):
        read_nucls_folds(tmp_path)
    (tmp_path / "fold_1_test.csv").unlink()
    with pytest.raises(AnnotationError, match=r"fold_1_test\.csv is missing; copy it next to the others"):
        read_nucls_folds(tmp_path)
    (tmp_path / "fold_1_train.csv").write_text("slide,fold\nA,1\n")
    with pytest.raises(AnnotationError, match=r"expected a column 'slide_name', but found \['slide', 'fold'\]"):
        read_nucls_folds(tmp_path)
