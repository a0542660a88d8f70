# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.handlers import CheckpointLoader, StatsHandler
from torch.utils.data import DataLoader

from tests.inference.colour_slides import PATTERN, ColourNet, slide_pixels, write_slide
from tral_monai.errors import AgreementError, CheckpointError, ConfigError, OutputError, SlideError
from tral_monai.inference.areas import AreasWriter
from tral_monai.inference.class_map_png import ClassMapWriter, read_class_map
from tral_monai.inference.device_block import DeviceBlock
from tral_monai.inference.engines.settings import EngineSettings
from tral_monai.inference.geojson_writer import GeoJSONWriter
from tral_monai.inference.mapped_tiles import MappedTiles
from tral_monai.inference.overlay import OverlayWriter
from tral_monai.inference.provenance import ProvenanceWriter
from tral_monai.inference.slide_evaluator import SlideEvaluator
from tral_monai.inference.slide_list import SlideListDataset
from tral_monai.inference.slide_writer import SlideEvents
from tral_monai.inference.tile_model import PerTileModel, TileOutputs
from tral_monai.inference.tissue_mapper import TissueMapper

SMALL = tuple(row[2:8] for row in PATTERN[2:8])  # 6 x 6 tiles: quick
SUFFIXES = (".geojson", ".json", "_classes.png", "_overlay.png")


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    folder = tmp_path / "slides of P. Smith"  # a folder's name must not get into any result
    folder.mkdir()
    write_slide(folder / "a.tif", slide_pixels(SMALL))
    write_slide(folder / "b.1.tif", slide_pixels(SMALL))
    return folder


def evaluator(slides: Path, output: Path, **settings: Any) -> SlideEvaluator:
    mapper = settings.pop("mapper", None) or TissueMapper(ColourNet(), tissue_method="paper")
    handlers = [ClassMapWriter(), GeoJSONWriter(), OverlayWriter(max_px=400), ProvenanceWriter(), AreasWriter()]
    handlers += settings.pop("handlers", [])
    data = settings.pop("data", None) or SlideListDataset(f"{slides}/*.tif")
    return SlideEvaluator(data, mapper, output, val_handlers=handlers, **settings)


def statuses(run: SlideEvaluator) -> dict[str, str]:
    return {result.name: result.status for result in run.results}


def test_every_slide_gets_its_files(slides: Path, tmp_path: Path) -> None:
    run = evaluator(slides, tmp_path / "maps")
    run.run()
    assert statuses(run) == {"a.tif": "mapped", "b.1.tif": "mapped"}
    written = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert written == sorted([f"{stem}{suffix}" for stem in ("a", "b.1") for suffix in SUFFIXES] + ["areas.csv"])
    values, names = read_class_map(tmp_path / "maps" / "a_classes.png")
    assert values.tolist() == [[0 if c == "." else 1 for c in row] for row in SMALL]
    assert names[1] == "Stroma"
    assert run.state.metrics == {"slides_mapped": 2, "slides_kept": 0, "slides_failed": 0, "tiles": 2 * 24}


def test_a_data_loader_does_as_well(slides: Path, tmp_path: Path) -> None:
    run = evaluator(slides, tmp_path / "maps", data=DataLoader(SlideListDataset(str(slides)), batch_size=1))
    run.run()
    assert statuses(run) == {"a.tif": "mapped", "b.1.tif": "mapped"}
    run = evaluator(slides, tmp_path / "two", data=DataLoader(SlideListDataset(str(slides)), batch_size=2))
    with pytest.raises(ConfigError, match="the batch has 2; use batch_size=1"):
        run.run()


def test_finished_slides_are_kept_and_anything_that_matters_makes_them_be_done_again(
    slides: Path, tmp_path: Path
) -> None:
    output = tmp_path / "maps"
    evaluator(slides, output).run()
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.json")}

    again = evaluator(slides, output)
    again.run()
    assert statuses(again) == {"a.tif": "kept", "b.1.tif": "kept"}
    assert {path.name: path.stat().st_mtime_ns for path in output.glob("*.json")} == before
    assert (output / "areas.csv").read_text().count("kept") == 2

    # A slide whose content changed, a file that is gone, a record cut short.
    write_slide(slides / "a.tif", slide_pixels(tuple(row.replace("S", "M") for row in SMALL)))
    changed = evaluator(slides, output)
    changed.run()
    assert statuses(changed) == {"a.tif": "mapped", "b.1.tif": "kept"}
    (output / "a_overlay.png").unlink()
    (output / "b.1.json").write_text('{"run_key": "')
    repaired = evaluator(slides, output)
    repaired.run()
    assert statuses(repaired) == {"a.tif": "mapped", "b.1.tif": "mapped"}

    # Other thresholds, other weights, other drawing, or no wish to resume.
    for settings in (
        {"mapper": TissueMapper(ColourNet(), tissue_method="paper", undefined_below=0.5)},
        {"mapper": TissueMapper(ColourNet(scale=0.06), tissue_method="paper")},
        {"resume": False},
    ):
        evaluator(slides, output).run()
        run = evaluator(slides, output, **settings)
        run.run()
        assert set(statuses(run).values()) == {"mapped"}
    run = SlideEvaluator(
        SlideListDataset(str(slides)),
        TissueMapper(ColourNet(), tissue_method="paper"),
        output,
        val_handlers=[
            ClassMapWriter({"Stroma": (1, 2, 3)}),
            GeoJSONWriter(),
            OverlayWriter(max_px=400),
            ProvenanceWriter(),
        ],
    )
    run.run()
    assert set(statuses(run).values()) == {"mapped"}


def test_killed_while_writing_leaves_nothing_that_looks_finished(slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "maps"

    class Killed(BaseException):
        pass

    def kill(engine: SlideEvaluator) -> None:
        raise Killed

    run = evaluator(slides, output)
    run.add_event_handler(SlideEvents.MAPPED, kill)  # after all writers, before the record
    with pytest.raises(Killed):
        run.run()
    (output / ".part-0123456789ab-a.geojson").write_text("half")
    assert not list(output.glob("*.json"))
    again = evaluator(slides, output)
    again.run()
    assert statuses(again) == {"a.tif": "mapped", "b.1.tif": "mapped"}
    assert not list(output.glob(".part-*"))


def test_an_older_record_goes_before_the_slide_is_done_again(slides: Path, tmp_path: Path) -> None:
    output = tmp_path / "maps"
    evaluator(slides, output).run()
    seen: list[bool] = []
    run = evaluator(slides, output, mapper=TissueMapper(ColourNet(scale=0.06), tissue_method="paper"))
    run.add_event_handler(SlideEvents.MAPPED, lambda: seen.append((output / "a.json").exists()))
    run.run()
    assert seen[0] is False


def test_bad_slides_are_reported_by_name_and_the_others_go_on(
    slides: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_slide(slides / "c.tif", slide_pixels(SMALL), mpp=None)
    (slides / "d.tif").write_bytes((slides / "a.tif").read_bytes()[:2000])
    (slides / "e.tif").touch()
    run = evaluator(slides, tmp_path / "maps")
    with caplog.at_level(logging.INFO):
        run.run()
    assert statuses(run) == {
        "a.tif": "mapped", "b.1.tif": "mapped", "c.tif": "failed", "d.tif": "failed", "e.tif": "failed",
    }  # fmt: skip
    errors = {result.name: result.error for result in run.results}
    assert "--mpp 0.25" in str(errors["c.tif"])
    assert str(errors["d.tif"]).startswith("d.tif")
    assert "the file is empty" in str(errors["e.tif"])
    assert "slide 5/5 failed: e.tif" in caplog.text
    table = (tmp_path / "maps" / "areas.csv").read_text().splitlines()
    assert len(table) == 6
    assert table[3].startswith("c.tif,failed,")
    assert not (tmp_path / "maps" / "d.json").exists()
    assert run.state.metrics["slides_failed"] == 3


@pytest.mark.parametrize(("fail_on", "good", "raises"), [
    ("all", True, False), ("all", False, True), ("any", True, True), ("never", False, False),
])  # fmt: skip
def test_when_a_run_ends_with_an_error(slides: Path, tmp_path: Path, fail_on: Any, good: bool, raises: bool) -> None:
    (slides / "b.1.tif").write_bytes(b"no slide")
    if not good:
        (slides / "a.tif").unlink()
    run = evaluator(slides, tmp_path / "maps", fail_on=fail_on)
    if raises:
        with pytest.raises(SlideError, match=r"1 of \d slides failed:\n  b\.1\.tif"):
            run.run()
    else:
        run.run()


def test_mpp_is_for_slides_without_one_unless_it_overrides(slides: Path, tmp_path: Path) -> None:
    write_slide(slides / "c.tif", slide_pixels(SMALL), mpp=None)
    run = evaluator(slides, tmp_path / "maps", mpp=0.5)
    run.run()
    mpps = {
        result.name: (result.record["slide"]["mpp_xy"], result.record["slide"]["mpp_source"]) for result in run.results
    }
    assert mpps["a.tif"] == ([pytest.approx(0.25), pytest.approx(0.25)], "file")
    assert mpps["c.tif"] == ([0.5, 0.5], "given")
    run = evaluator(slides, tmp_path / "all", mpp=0.5, override_mpp=True)
    run.run()
    assert all(result.record["slide"]["mpp_source"] == "given" for result in run.results)


def test_no_folder_gets_into_any_result(slides: Path, tmp_path: Path) -> None:
    (slides / "d.tif").write_bytes(b"no slide")
    shutil.copy(slides / "a.tif", slides / "e.tif")
    data = SlideListDataset(str(slides))
    (slides / "e.tif").unlink()  # gone since the list was made: the message of the operating system has the path
    run = evaluator(slides, tmp_path / "maps", data=data)
    run.run()
    assert statuses(run)["e.tif"] == "failed"
    for path in (tmp_path / "maps").iterdir():
        assert b"Smith" not in path.read_bytes()
    assert all("Smith" not in str(result.error) for result in run.results)


def test_an_unexpected_error_of_one_slide_does_not_end_the_run(
    slides: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Fragile(ColourNet):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.batch_sizes.append(0)
            if len(self.batch_sizes) == 1:
                raise ZeroDivisionError("first batch")
            return super().forward(image)

    run = evaluator(slides, tmp_path / "maps", mapper=TissueMapper(Fragile(), tissue_method="paper"))
    run.run()
    assert statuses(run) == {"a.tif": "failed", "b.1.tif": "mapped"}
    assert run.results[0].error == "a.tif: ZeroDivisionError: first batch; see the log"
    assert "Traceback" in caplog.text


class Raising(ColourNet):
    """Raises on the first batch of the given slide (0 is the first)."""

    def __init__(self, error: Exception, slide: int = 0) -> None:
        super().__init__()
        self.error, self.calls_left = error, slide

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls_left -= 1  # a slide of 24 tiles is one batch
        if self.calls_left < 0:
            raise self.error
        return super().forward(image)


def test_an_unexpected_message_with_a_folder_is_for_the_log_only(
    slides: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = Raising(ValueError("cannot map /home/x/y"))
    run = evaluator(slides, tmp_path / "maps", mapper=TissueMapper(network, tissue_method="paper"), fail_on="never")
    run.run()
    assert [result.error for result in run.results] == [
        f"{name}: ValueError; see the log" for name in ("a.tif", "b.1.tif")
    ]
    table = (tmp_path / "maps" / "areas.csv").read_text()
    assert "a.tif: ValueError; see the log" in table
    assert "home" not in table
    assert "cannot map /home/x/y" in caplog.text


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory."), MemoryError(), "torch on a CPU"],
    ids=["gpu", "python", "torch on a CPU"],
)
def test_a_lack_of_memory_ends_the_run_with_what_to_lower(slides: Path, tmp_path: Path, error: Any) -> None:
    if isinstance(error, str):
        with pytest.raises(RuntimeError) as caught:
            torch.empty(1 << 50)
        error = caught.value
    network = Raising(error, slide=1)
    run = evaluator(slides, tmp_path / "maps", mapper=TissueMapper(network, tissue_method="paper"), fail_on="never")
    with pytest.raises(
        ConfigError, match="memory does not suffice for batches of 64 tiles .* lower predict_batch_size"
    ):
        run.run()
    assert [path.name for path in (tmp_path / "maps").glob("*.json")] == ["a.json"]


def test_a_lack_of_memory_outside_of_the_model_ends_the_run_too(slides: Path, tmp_path: Path) -> None:
    def too_large() -> None:
        if run.state.result.name == "b.1.tif":
            np.empty(1 << 50)

    run = evaluator(slides, tmp_path / "maps", fail_on="never")
    run.add_event_handler(SlideEvents.SLIDE_OPENED, too_large)
    with pytest.raises(ConfigError, match=r"memory is used up \(\w*MemoryError at b\.1\.tif\); lower num_workers"):
        run.run()
    assert statuses(run) == {"a.tif": "mapped"}


class Flipped:
    """A fast way to run a network that gives the last class for the first, from the second slide on."""

    def __init__(self, network: torch.nn.Module, right_tiles: int) -> None:
        self.network, self.right_tiles, self.exact = network, right_tiles, PerTileModel(network)

    def settings(self) -> dict[str, Any]:
        return {"engine": "flipped"}

    def runtime(self) -> dict[str, Any]:
        return {}

    def __call__(self, block: DeviceBlock, *, want_features: bool = False, done: Any) -> TileOutputs:
        logits = self.exact(block, done=done).logits
        self.right_tiles -= len(logits)
        return TileOutputs(logits if self.right_tiles >= 0 else logits.flip(1))


def test_an_engine_that_disagrees_ends_the_run_and_earlier_slides_stay(
    slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose(network: torch.nn.Module, **settings: Any) -> Flipped:
        return Flipped(network, right_tiles=2 * 24)  # compared and mapped: the first slide

    monkeypatch.setattr("tral_monai.inference.tissue_mapper.choose_tile_model", choose)
    mapper = TissueMapper(ColourNet(), tissue_method="paper", engine=EngineSettings(agreement_tiles=48))
    run = evaluator(slides, tmp_path / "maps", mapper=mapper, fail_on="never")
    with pytest.raises(AgreementError, match="gives the class of torch fp32 on 24 of 48 sampled tiles"):
        run.run()
    assert statuses(run) == {"a.tif": "mapped"}
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {*(f"a{end}" for end in SUFFIXES), "areas.csv"}
    record = json.loads((tmp_path / "maps" / "a.json").read_text())
    assert record["runtime"]["agreement"]["tiles"] == 24


def test_a_full_disk_ends_the_run(slides: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = evaluator(slides, tmp_path / "maps")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write a_classes\.png: No space left"):
        run.run()
    assert list((tmp_path / "maps").iterdir()) == []


def test_monais_handlers_work(slides: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained, network = ColourNet(scale=0.05), ColourNet(scale=0.0)
    torch.save({"model": trained.state_dict()}, tmp_path / "model.pt")
    run = evaluator(
        slides,
        tmp_path / "maps",
        mapper=TissueMapper(network, tissue_method="paper"),
        handlers=[
            CheckpointLoader(load_path=str(tmp_path / "model.pt"), load_dict={"model": network}),
            StatsHandler(name=None, iteration_log=False),
        ],
    )
    with caplog.at_level(logging.INFO):
        run.run()
    assert run.results[0].record["result"]["tiles"]["Stroma"] == 24  # with scale 0 all would be undefined
    assert "slides_mapped: 2" in caplog.text


def test_a_checkpoint_of_other_classes_ends_the_run_before_the_first_slide(slides: Path, tmp_path: Path) -> None:
    from tral_monai.networks.tri_cnn import TriCNN

    options: dict[str, Any] = {"backbone": "timm:mobilenetv3_small_050", "hidden": (4,), "seed": 0}
    theirs, ours = TriCNN(["Stroma", "Muscle"], **options), TriCNN(["Stroma", "Blood"], **options)
    torch.save({"model": theirs.state_dict(), "contract": theirs.contract.state_dict()}, tmp_path / "model.pt")
    load = CheckpointLoader(load_path=str(tmp_path / "model.pt"), load_dict={"contract": ours.contract, "model": ours})
    run = evaluator(slides, tmp_path / "maps", mapper=TissueMapper(ours), handlers=[load])
    with pytest.raises(CheckpointError, match="classes: the checkpoint has"):
        run.run()
    assert list((tmp_path / "maps").iterdir()) == []


def test_events_come_in_their_order_and_maps_are_let_go(slides: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    run = evaluator(slides, tmp_path / "maps")
    for event in SlideEvents:
        if event is not SlideEvents.TILES_COMPLETED:
            run.add_event_handler(event, lambda engine, name=event.name: seen.append(name))
    run.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(run.state.output[0]["image"]))
    run.run()
    moments = ["SLIDE_OPENED", "MAPPED", "WRITTEN"]  # single tiles only where a handler wants them
    assert seen == [*moments, "a.tif", *moments, "b.1.tif", "RUN_ENDED"]
    assert run.results[0].prediction is None
    assert run.state.slide is None


def test_the_tiles_of_a_slide_are_streamed_where_a_handler_wants_them(slides: Path, tmp_path: Path) -> None:
    run = evaluator(slides, tmp_path / "maps")
    seen: dict[str, list[MappedTiles]] = {}
    run.want_tiles()
    run.add_event_handler(
        SlideEvents.TILES_MAPPED, lambda: seen.setdefault(run.state.slide.name, []).append(run.state.tiles)
    )
    maps = {}
    run.add_event_handler(SlideEvents.MAPPED, lambda: maps.update({run.state.slide.name: run.state.result.prediction}))
    run.run()
    assert set(seen) == {"a.tif", "b.1.tif"}
    for name, blocks in seen.items():
        tissue = maps[name]
        assert sum(len(block.rows) for block in blocks) == tissue.tissue_tiles > 0
        for block in blocks:
            shown = tissue.confidence[block.rows, block.columns]
            assert block.probabilities.max(axis=1) == pytest.approx(shown, abs=1e-3)  # float16
            assert (block.centres_level0 == np.column_stack((block.columns, block.rows)) * 128 + 64).all()
            assert block.features is None
    assert run.state.tiles is None


def test_a_run_can_be_repeated_with_other_weights(slides: Path, tmp_path: Path) -> None:
    network = ColourNet()
    run = evaluator(slides, tmp_path / "maps", mapper=TissueMapper(network, tissue_method="paper"))
    run.run()
    with torch.no_grad():
        network.scale.mul_(2.0)
    run.run()
    assert statuses(run) == {"a.tif": "mapped", "b.1.tif": "mapped"}
    record = json.loads((tmp_path / "maps" / "a.json").read_text())
    assert record["model"]["weights_sha256"] == run.weights_sha256


def test_a_mapper_is_reset_between_runs_where_the_weights_changed(slides: Path, tmp_path: Path) -> None:
    class Mapper(TissueMapper):
        resets = 0

        def reset(self) -> None:
            self.resets += 1
            getattr(super(), "reset", lambda: None)()

    network = ColourNet()
    mapper = Mapper(network, tissue_method="paper")
    run = evaluator(slides, tmp_path / "maps", mapper=mapper)
    for scale, resets in ((1.0, 0), (1.0, 0), (2.0, 1)):
        with torch.no_grad():
            network.scale.mul_(scale)
        run.run()
        assert mapper.resets == resets


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fail_on": "some"}, "fail_on must be 'all', 'any' or 'never', but is 'some'"),
        ({"mpp": -1.0}, r"mpp must be a positive number .* but is -1\.0"),
        ({"mpp": "40x"}, "mpp must be a positive number .* but is '40x'"),
        ({"override_mpp": True}, "override_mpp needs the value to use"),
        ({"handlers": [ClassMapWriter()]}, "two handlers write '<name>_classes.png'; remove one"),
    ],
)
def test_settings_are_checked_before_the_run(
    slides: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluator(slides, tmp_path / "maps", **settings)


def test_two_slides_of_one_name_are_told_whatever_lists_them(slides: Path, tmp_path: Path) -> None:
    data = [{"image": str(slides / "a.tif")}, {"image": str(slides / "a.svs")}]
    with pytest.raises(ConfigError, match=r"two slides would write 'a\.json'"):
        evaluator(slides, tmp_path / "maps", data=data).run()
