# SPDX-License-Identifier: Apache-2.0
"""Inference and a training of the server's models on an NVIDIA GPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from PIL import Image

pytest.importorskip("monailabel")

from tests.inference.nuclei.disc_fields import draw_discs, scattered_discs
from tests.label_app.small_models import NAMES, nucleus_checkpoint, tissue_checkpoint, write_painted_slide
from tests.rounds.regions.colour_site import annotate, make_slides, tissue_site
from tral_monai.label_app.infer_task import SiteInferTask
from tral_monai.networks.checkpoint import load_checkpoint
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.regions.settings import read_settings
from tral_monai.rounds.regions.site import AnnotationSite
from tral_monai.rounds.regions.train_round import train_round

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

GPU = "cuda:0"
FIELD = (300, 260)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A studies folder with a painted slide and a field of discs, and checkpoints that know both."""
    models, studies = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("studies")
    write_painted_slide(studies / "painted.tif")
    tissue_checkpoint(models / "tissue.pt", studies / "painted.tif")
    nucleus_checkpoint(models / "nuclei.pt")
    Image.fromarray(draw_discs(FIELD, scattered_discs(FIELD, 30, seed=3, radii=(6, 12)))).save(studies / "field.png")
    return studies, models


def infer_task(folders: tuple[Path, Path], output_dir: Path, name: str, device: str) -> SiteInferTask:
    studies, models = folders
    conf = {f"{task}_checkpoint": str(models / f"{task}.pt") for task in ("tissue", "nuclei")}
    site = AnnotationSite(studies, read_settings({**conf, "device": device, "output_dir": str(output_dir)}))
    return SiteInferTask(site.task(name))


def test_tissue_is_the_same_as_on_a_cpu(folders: tuple[Path, Path], tmp_path: Path) -> None:
    request = {"image": "painted", "location": [0, 0], "size": [0, 0]}
    here, there = (infer_task(folders, tmp_path / d[:3], "tissue", d).infer_slide(request) for d in ("cpu", GPU))
    assert there.shapes.counts() == here.shapes.counts() == {**dict.fromkeys(NAMES, 1), "Undefined": 0}
    for polygon, other in zip(here.shapes.polygons, there.shapes.polygons, strict=True):
        assert shapely.equals(polygon, other)
    np.testing.assert_allclose(there.shapes.scores, here.shapes.scores, atol=0.02)  # a GPU may compute in TF32


def test_nuclei_are_the_same_as_on_a_cpu(folders: tuple[Path, Path], tmp_path: Path) -> None:
    request = {"image": "field", "mpp": 0.25}
    here, there = (infer_task(folders, tmp_path / d[:3], "nuclei", d).infer_slide(request) for d in ("cpu", GPU))
    assert len(here.shapes) >= 25
    assert abs(len(there.shapes) - len(here.shapes)) <= 2
    centres = np.array([polygon.centroid.coords[0] for polygon in here.shapes.polygons])
    for polygon in there.shapes.polygons:
        assert np.abs(centres - polygon.centroid.coords[0]).max(axis=1).min() <= 2.0


def test_a_round_is_trained_on_the_gpu_and_its_model_infers_on_both(tmp_path: Path) -> None:
    studies = make_slides(tmp_path / "studies")
    task = tissue_site(studies, device=GPU)
    assert task.device == GPU
    for name in ("a.tif", "c.tif"):  # half of a slide to train on, and half of the held-out one
        annotate(studies, Region(name, 0, 0, 1024, 384))
    torch.cuda.reset_peak_memory_stats()
    result = train_round(task, log=lambda line: None)
    assert (result["trained"], result["published"], result["query"]["open"]) == (True, True, 2)
    assert result["val"]["f1_macro"] > 0.9  # 1.0 on a CPU
    assert torch.cuda.max_memory_allocated() > 1_000_000  # the network was there, and not only its name
    assert all(value.device.type == "cpu" for value in load_checkpoint(task.model_path).state_dict().values())
    elsewhere = tissue_site(studies, device="cpu", output_dir=str(tmp_path / "cpu"))
    elsewhere.folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(task.model_path, elsewhere.model_path)
    there, here = (
        SiteInferTask(site).infer_slide({"image": "a", "undefined_below": 0.0}) for site in (task, elsewhere)
    )
    assert len(here.shapes) >= 1
    drawn = [shapely.union_all(found.shapes.polygons) for found in (there, here)]
    assert drawn[0].equals(drawn[1])  # the same tissue, whatever the classes after two epochs
