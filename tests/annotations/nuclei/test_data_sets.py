# SPDX-License-Identifier: Apache-2.0
import functools
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tral_monai.annotations.nuclei.data_sets import DATASETS, OPEN_SETS, known_classes, read_fields
from tral_monai.data.generated.fields import generate_fields
from tral_monai.errors import AnnotationError, ConfigError


def consep(folder, *, names=("train_1",)):
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    instances = np.zeros((20, 30), np.int32)
    instances[2:6, 3:10] = 1
    for name in names:
        Image.new("RGB", (30, 20)).save(folder / "images" / f"{name}.png")
        savemat(folder / "labels" / f"{name}.mat", {"inst_map": instances, "inst_type": np.array([[4]])})
    return folder


@functools.cache
def real_fields(dataset, folder):
    return read_fields(dataset, folder)


def test_the_settings_are_those_of_the_paper():
    assert known_classes("nucls", "5+2") == ("Tum", "Lym", "Str", "Pla", "Mit")
    assert known_classes("nucls", "4+3") == ("Tum", "Lym", "Str", "Pla")
    assert known_classes("nucls", "3+4") == ("Tum", "Lym", "Str")
    assert known_classes("consep", "2+5") == ("malignant_epithelial", "healthy_epithelial")
    for settings in OPEN_SETS.values():
        for setting, known in settings.items():
            assert len(set(known)) == int(setting.split("+")[0])
        assert len({sum(map(int, setting.split("+"))) for setting in settings}) == 1


@pytest.mark.parametrize(
    ("dataset", "folder", "setting", "unknown"),
    [
        ("nucls", "nucls_annotations", "5+2", {"Mac", "Oth"}),
        ("nucls", "nucls_annotations", "4+3", {"Mac", "Oth", "Mit"}),
        ("nucls", "nucls_annotations", "3+4", {"Mac", "Oth", "Mit", "Pla"}),
        ("consep", "consep", "5+2", {"other", "endothelial"}),
        ("consep", "consep", "4+3", {"other", "endothelial", "muscle"}),
        ("consep", "consep", "3+4", {"other", "endothelial", "muscle", "healthy_epithelial"}),
        ("crchistophenotypes", "crchistophenotypes", "2+2", {"fibroblast", "other"}),
    ],
)
def test_the_real_sets_hold_the_known_classes_and_the_unknown_ones(tral_data, dataset, folder, setting, unknown):
    fields = real_fields(dataset, tral_data / folder)
    present = {name for field in fields for name, out in zip(field.classes, field.ignored, strict=True) if not out}
    assert present - set(known_classes(dataset, setting)) == unknown
    assert set(known_classes(dataset, setting)) < present


def test_two_thirds_are_unknown_in_the_last_setting_of_consep(tral_data):
    counts = Counter(name for field in real_fields("consep", tral_data / "consep") for name in field.classes)
    known = sum(counts[name] for name in known_classes("consep", "2+5"))
    assert known == 1117 + 4420
    assert 0.62 < 1 - known / counts.total() < 0.68


def test_the_generated_set_is_read_and_has_the_seven_classes(tmp_path):
    generate_fields(tmp_path, n_fields=4, field_px=256, hospitals=2, patients=4, seed=1)
    fields = read_fields("generated", tmp_path)
    assert [field.width_px for field in fields] == [256] * 4
    assert {field.mpp for field in fields} == {0.25}
    assert len({field.patient for field in fields}) == 4
    assert len({field.hospital for field in fields}) == 2
    present = {name for field in fields for name in field.classes}
    assert set(known_classes("generated", "3+4")) <= present
    assert present <= {*known_classes("generated", "5+2"), "macrophage", "other"}
    assert all(field.problems == () for field in fields)


def test_given_values_reach_the_reader(tmp_path):
    (field,) = read_fields("consep", consep(tmp_path / "c"), mpp=0.5, class_level="merged")
    assert (field.mpp, field.classes) == (0.5, ("epithelial",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "monuseg"}, "dataset must be one of nucls, consep, .*generated, but is 'monuseg'"),
        ({"mpp": 0.0}, "mpp must be a positive number of micrometres per pixel, but is 0.0"),
        ({"mpp": float("nan")}, "mpp must be a positive"),
        ({"class_level": "paper"}, "class_level of 'consep' must be one of original, merged, but is 'paper'"),
        ({"dataset": "coco", "class_level": "raw"}, "class_level of 'coco' must be left out"),
        ({"box_um": 8.0}, "box_um is the size of boxes around centres, but 'consep' has boxes of its own"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, arguments, message):
    arguments = {"dataset": "consep", "dataset_dir": consep(tmp_path / "c"), **arguments}
    with pytest.raises(ConfigError, match=message):
        read_fields(arguments.pop("dataset"), arguments.pop("dataset_dir"), **arguments)


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_missing_or_empty_folder_is_named(tmp_path, dataset):
    with pytest.raises(AnnotationError, match=f"there is no folder 'nowhere' of the data set '{dataset}'; check"):
        read_fields(dataset, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match=r"empty: expected .*"):
        read_fields(dataset, tmp_path / "empty")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(AnnotationError, match=r"'x.csv' is a file, but the data set 'nucls' is a folder"):
        read_fields("nucls", tmp_path / "x.csv")


def test_folders_without_an_image_are_refused(tmp_path):
    with pytest.raises(AnnotationError, match="c: no field of the data set 'consep' could be read; check that the im"):
        read_fields("consep", consep(tmp_path / "c", names=()))


def test_a_damaged_field_is_noted_by_name_and_the_others_are_read(tmp_path):
    folder = consep(tmp_path / "c", names=("train_1", "train_2", "train_3"))
    (folder / "images/train_2.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (folder / "labels/train_3.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"x" * 300)
    problems: list[str] = []
    assert [field.name for field in read_fields("consep", folder, problems=problems)] == ["train_1"]
    assert "train_2.png: not an image that can be read" in problems[0]
    assert "train_3.mat: not a MATLAB file that can be read" in problems[1]
    with pytest.raises(AnnotationError, match=r"train_2\.png"):
        read_fields("consep", folder)
    (folder / "labels/train_1.mat").unlink()
    with pytest.raises(AnnotationError, match=r"no field of .*train_1\.mat: the annotation is not there"):
        read_fields("consep", folder, problems=problems[:0])


@pytest.mark.parametrize(
    ("dataset", "setting", "message"),
    [
        ("consep", "6+1", r"open_set of 'consep' must be one of 5\+2, 4\+3, 3\+4, 2\+5, but is '6\+1'; or list"),
        ("coco", "5+2", "'coco' has classes of your own"),
        ("x", "5+2", "dataset must be one of"),
    ],
)
def test_unknown_settings_are_refused(dataset, setting, message):
    with pytest.raises(ConfigError, match=message):
        known_classes(dataset, setting)
