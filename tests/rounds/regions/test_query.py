# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from tests.rounds.regions.colour_site import make_slides, record, tissue_site
from tests.rounds.regions.round_steps import answer, asked, train
from tests.rounds.regions.round_steps import studies as studies
from tests.rounds.regions.round_steps import task as task
from tests.rounds.regions.test_slide_grid import write_areas
from tests.rounds.regions.test_tissue_outputs import model as model
from tral_monai.cli import ledger as ledger_command
from tral_monai.errors import BusyError, LedgerError, StrategyError
from tral_monai.rounds.regions.candidates import candidate_regions
from tral_monai.rounds.regions.query import next_region, prepare_query
from tral_monai.rounds.regions.query_note import QueryNote
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.run_lock import RunLock


def test_the_first_round_asks_for_both_purposes_evenly_mixed(task):
    assert prepare_query(task) == 0
    rows = asked(task)
    assert [row.purpose for row in rows] == ["train", "val", "train", "train", "val", "train"]
    for row in rows:
        assert row.region.slide in ({"c.tif"} if row.purpose == "val" else {"a.tif", "b.tif"})
    assert {row.reason for row in rows if row.purpose == "train"} == {"drawn at random"}
    assert "held out" in rows[1].reason
    pool = pd.read_parquet(task.round_dir(0) / "pool.parquet")
    assert pool["purpose"].value_counts().to_dict() == {"train": 24, "val": 12}


def test_a_query_is_made_once(task):
    prepare_query(task)
    rows = asked(task)
    assert prepare_query(task, "uncertainty") == 0
    assert asked(task) == rows


def test_without_a_model_regions_cover_the_tissue(studies):
    task = tissue_site(studies, tissue_strategy="tri_al_quota")
    prepare_query(task)
    first = asked(task)[0]
    assert first.reason.startswith("first round: region 1 of 1 that cover the tissue of ")
    with task.ledger() as ledger:
        info = ledger.info()
    assert (info["strategy_round_0"], info["strategy_used_round_0"]) == ("tri_al_quota", "coverage")


def test_a_given_model_chooses_in_the_first_round_where_it_can(studies, model):
    task = tissue_site(studies, tissue_strategy="uncertainty", tissue_checkpoint=str(model))
    prepare_query(task)
    reasons = [row.reason for row in asked(task) if row.purpose == "train"]
    assert len(reasons) == 2
    assert all("entropy" in reason for reason in reasons)


def test_a_given_model_without_held_out_answers_cannot_serve_tri_al(studies, model):
    task = tissue_site(studies, tissue_strategy="tri_al_quota", tissue_checkpoint=str(model))
    prepare_query(task)
    assert "first round, and tri_al_quota goes by errors on held-out regions: region 1" in asked(task)[0].reason


def test_tri_al_asks_for_predicted_classes_by_the_errors_on_held_out_regions(studies, model):
    task = tissue_site(studies, tissue_strategy="tri_al_iter", tissue_budget=4, tissue_val_budget=2)
    prepare_query(task)
    before = asked(task)
    answer(task, *before)
    assert train(task, model) == 1
    assert prepare_query(task) == 1
    rows = asked(task, 1)
    assert len(rows) == 4
    assert {row.purpose for row in rows} == {"train"}  # held-out regions are asked for once
    assert not {row.region for row in rows} & {row.region for row in before}
    pool = pd.read_parquet(task.round_dir(1) / "pool.parquet").set_index("id")
    assert len(pool) == 24 - 4
    for row in rows:
        assert row.class_asked == pool.at[row.region.id, "class_predicted"]
        assert f"FNR of {row.class_asked}" in row.reason


def test_held_out_regions_are_asked_for_until_one_is_answered(task, model):
    prepare_query(task)
    answer(task, *[row for row in asked(task) if row.purpose == "train"])
    train(task, model, confusion=None)
    prepare_query(task, "tri_al_quota")
    rows = asked(task, 1)
    assert Counter(row.purpose for row in rows) == {"train": 4, "val": 2}
    first = next(row for row in rows if row.purpose == "train")
    assert first.reason.startswith("no held-out region is measured yet, and tri_al_quota goes by errors")


def test_held_out_regions_that_nobody_answered_are_asked_for_anew(task, model):
    prepare_query(task)
    first = [row for row in asked(task) if row.purpose == "val"]
    answer(task, first[0], *[row for row in asked(task) if row.purpose == "train"])
    train(task, model)
    prepare_query(task)
    later = [row for row in asked(task, 1) if row.purpose == "val"]
    assert len(later) == 2 - 1
    assert later[0].region not in {row.region for row in first}


def test_a_strategy_that_only_the_model_lacks(task):
    prepare_query(task)
    answer(task, *asked(task))
    train(task)
    prepare_query(task, "uncertainty")
    assert asked(task, 1)[0].reason.startswith("there is no model: region 1 of 2 that cover")


def test_the_last_regions_and_then_none(studies):
    task = tissue_site(studies, tissue_budget=20, tissue_val_budget=0)
    for round_, left in enumerate((20, 4)):
        assert prepare_query(task) == round_
        assert len(asked(task, round_)) == left
        train(task)
    with pytest.raises(
        Exception, match="all regions of the slides in 'studies' were asked for or annotated; add slides"
    ):
        prepare_query(task)


def test_what_annotators_chose_themselves_is_not_asked_for(studies):
    task = tissue_site(studies, tissue_budget=99, tissue_val_budget=0)
    record(task, Region("a.tif", 30, 0, 512, 512), "train", ("Stroma", Region("a.tif", 30, 0, 9, 9).polygon))
    prepare_query(task)
    places = {row.region.bbox_level0[:2] for row in asked(task) if row.region.slide == "a.tif"}
    # The first two columns and rows are covered; 30 of 256 px of the third column are too little to count.
    assert places == {(x, y) for x in (0, 256, 512, 768) for y in (0, 256, 512)} - {
        (x, y) for x in (0, 256) for y in (0, 256)
    }


def test_a_query_needs_no_more_than_max_candidates(studies, model):
    task = tissue_site(
        studies, tissue_strategy="uncertainty", tissue_checkpoint=str(model), tissue_max_candidates=10,
        tissue_val_budget=0,
    )  # fmt: skip
    prepare_query(task)
    pool = pd.read_parquet(task.round_dir(0) / "pool.parquet")
    assert pool["slide"].value_counts().to_dict() == {"a.tif": 5, "b.tif": 5}


def test_the_seed_decides(studies, tmp_path):
    def chosen(name, **conf):
        task = tissue_site(studies, output_dir=str(tmp_path / name), **conf)
        prepare_query(task)
        return [row.region for row in asked(task)]

    assert chosen("one") == chosen("two")
    assert chosen("one") != chosen("three", seed=1)


def test_other_classes_are_another_ledger(studies, task):
    next_region(task)
    other = tissue_site(studies, tissue_classes="Stroma, Muscle")
    for ask in (prepare_query, next_region):
        with pytest.raises(LedgerError, match=r"holds another run \(classes: recorded .'Stroma', 'Muscle', 'Blood'.,"):
            ask(other)


def test_a_strategy_that_stops(studies, model):
    task = tissue_site(studies, tissue_budget=30, tissue_max_candidates=10)
    train(task, model)
    with pytest.raises(StrategyError, match=r"tri_al_ood asks for nothing more \(the pool of .* holds"):
        prepare_query(task, "tri_al_ood")


def test_the_ledger_command_reads_it(task, capsys):
    answer(task, next_region(task))
    train(task)
    with task.ledger() as ledger:
        ledger.record_event(1, "ROUND_STARTED")
    parser = __import__("argparse").ArgumentParser()
    ledger_command.add_arguments(parser)
    assert ledger_command.run(parser.parse_args([str(task.folder)])) == 0
    assert "random, seed 0" in capsys.readouterr().out


def test_two_processes_make_one_query(studies, task):
    program = textwrap.dedent(
        """
        import sys
        from tests.rounds.regions.colour_site import tissue_site
        from tral_monai.rounds.regions.query import prepare_query
        from pathlib import Path
        prepare_query(tissue_site(Path(sys.argv[1]), tissue_budget=4, tissue_val_budget=2))
        """
    )
    running = subprocess.Popen([sys.executable, "-c", program, str(studies)], cwd=Path.cwd())
    prepare_query(task)
    assert running.wait(timeout=60) == 0
    assert len(asked(task)) == 6


def looked_at(task):
    return {json.loads(file.read_text())["slide"] for file in (task.folder / "candidates").glob("*.json")}


def test_a_first_query_looks_at_no_more_slides_than_it_asks_for_regions(tmp_path):
    names = tuple("abcdefghijkl")
    studies = make_slides(tmp_path / "studies", names, held_out="ijkl")
    conf = {"tissue_budget": 3, "tissue_val_budget": 2, "tissue_strategy": "tri_al_quota"}
    task = tissue_site(studies, **conf)
    told = []
    prepare_query(task, progress=lambda *at: told.append(at))
    rows = asked(task)
    assert len(looked_at(task)) == 5
    assert {row.region.slide for row in rows if row.purpose == "val"} <= {f"{name}.tif" for name in "ijkl"}
    assert len({row.region.slide for row in rows}) == 5
    assert told[:3] == [(0, 3), (1, 3), (2, 3)]
    # The same regions where other slides were looked at before.
    other = tissue_site(studies, **conf, output_dir=str(tmp_path / "other"))
    other.site.catalog.sides()
    assert len(set(candidate_regions(other)["slide"])) == 12
    prepare_query(other)
    assert [row.region for row in asked(other)] == [row.region for row in rows]
    # What can only be known of all slides waits for a round that needs it.
    answer(task, *rows)
    train(task, confusion=None)
    prepare_query(task, "random")
    assert len(looked_at(task)) == 12


def test_slides_without_tissue_do_not_count(tmp_path):
    studies = make_slides(tmp_path / "studies", ("a",), held_out="")
    for name in "bcdef":
        (studies / f"{name}.tif").write_bytes(b"II*\0 and no more")
    (studies / "slides.csv").write_text("slide,split\n" + "".join(f"{name},train\n" for name in "abcdef"))
    task = tissue_site(studies, tissue_budget=2, tissue_strategy="tri_al_quota")
    prepare_query(task)
    assert [row.region.slide for row in asked(task)] == ["a.tif", "a.tif"]


def test_areas_say_without_a_look_what_a_slide_is_for(tmp_path):
    studies = make_slides(tmp_path / "studies", ("a", "b"), held_out="")
    write_areas(studies / "a.geojson", ("val", "Stroma", (0, 0, 512, 768)))
    write_areas(studies / "b.geojson", ("train", "Stroma", (0, 0, 512, 768)))
    (studies / "slides.csv").write_text("slide,areas\na,a.geojson\nb,b.geojson\n")
    task = tissue_site(studies, tissue_budget=2, tissue_val_budget=1)
    prepare_query(task)
    assert {(row.region.slide, row.purpose) for row in asked(task)} == {("a.tif", "val"), ("b.tif", "train")}


def test_who_waits_too_long_for_a_query_is_told_how_far_it_is(task, monkeypatch):
    monkeypatch.setattr("tral_monai.rounds.regions.query._PATIENCE_S", 0.3)
    folder = task.folder / "query"
    with RunLock(folder):
        with pytest.raises(BusyError, match=r"^the next round's query is being prepared; ask again in a moment$"):
            next_region(task)
        note = QueryNote(folder)
        with pytest.raises(BusyError, match=r"is being prepared \(for \d s\); ask again in a moment"):
            next_region(task)
        monkeypatch.setattr("tral_monai.rounds.regions.query_note._EVERY_S", 0.0)
        note(3, 16)
        with pytest.raises(BusyError, match=r"is being prepared \(3 of 16 slides looked at, for \d s\); ask"):
            prepare_query(task)
    assert prepare_query(task) == 0
    assert not (folder / "progress.json").exists()
