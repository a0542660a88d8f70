# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tests.inference.colour_slides import slide_pixels, write_slide
from tests.rounds.regions.colour_site import PATTERN, make_slides, record, tissue_site
from tests.rounds.regions.test_slide_grid import write_areas
from tests.rounds.regions.test_tissue_outputs import CLASSES
from tests.rounds.regions.test_tissue_outputs import model as model
from tral_monai.cli import ledger as ledger_command
from tral_monai.errors import BusyError, LedgerError, RoundSpentError, StrategyError, UnknownItemError
from tral_monai.rounds.ledger import ModelRecord
from tral_monai.rounds.regions.candidates import candidate_regions
from tral_monai.rounds.regions.query import next_region, prepare_query, strategy_name
from tral_monai.rounds.regions.query_note import QueryNote
from tral_monai.rounds.regions.region import Region
from tral_monai.rounds.run_lock import RunLock


@pytest.fixture
def studies(tmp_path):
    """Slides a and b to train on and c held out, each of 12 regions."""
    return make_slides(tmp_path / "studies")


@pytest.fixture
def task(studies):
    """Four regions a round to train on, two to measure by; no model."""
    return tissue_site(studies, tissue_budget=4, tissue_val_budget=2)


def train(task, model=None, confusion=((6, 2, 2), (1, 3, 0), (0, 0, 2))):
    """What a training of the next round leaves in the ledger, and its model."""
    with task.ledger() as ledger:
        round_ = ledger.round + 1
        ledger.record_model(round_, ModelRecord("model.pt", "", 1.0, 1, None))
        if confusion is not None:
            ledger.record_evaluation(round_, "val", {"f1_macro": 0.5}, confusion, CLASSES)
    if model is not None:
        task.model_path.write_bytes(model.read_bytes())
    return round_


def asked(task, round_=0):
    with task.ledger() as ledger:
        return ledger.asked(round_)


def answer(task, *rows):
    for row in rows:
        x, y, width, height = row.region.bbox_level0
        record(task, row.region, row.purpose, ("Stroma", row.region.polygon))
        assert width * height > 0, (x, y)


# -- the query --------------------------------------------------------------------------------------------------------


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


# -- the next region --------------------------------------------------------------------------------------------------


def test_regions_come_by_rank_and_the_round_ends(task):
    given = [next_region(task, client=f"client {i}") for i in range(6)]
    assert [row.rank for row in given] == list(range(6))
    assert given[0].reserved_by == "client 0"
    assert given[0].reserved_until == pytest.approx(time.time() + 15 * 60, abs=30)
    answer(task, *given[:2])
    with pytest.raises(
        RoundSpentError,
        match=r"^round 0 has given out its 6 regions: 2 answered, 4 reserved until \d\d:\d\d; submit those, or train "
        r"\(POST /train/tissue\) to open round 1$",
    ):
        next_region(task, client="late")
    answer(task, *given[2:])
    with pytest.raises(RoundSpentError, match=r"6 regions: 6 answered; train \(POST /train/tissue\) to open round 1"):
        next_region(task, client="late")
    train(task)
    assert next_region(task, client="late").round == 1


def test_a_client_with_a_name_gets_its_own_region_again(task):
    given = [next_region(task, client="ann") for _ in range(6)]
    assert next_region(task, client="ann").region == given[0].region
    with pytest.raises(RoundSpentError):
        next_region(task)


def test_a_reservation_ends(studies):
    task = tissue_site(studies, tissue_budget=1, tissue_val_budget=0, reserve_minutes=0.01)
    first = next_region(task, client="ann")
    with pytest.raises(RoundSpentError):
        next_region(task, client="bob")
    time.sleep(0.7)
    assert next_region(task, client="bob").region == first.region


def test_threads_never_get_the_same_region(studies):
    task = tissue_site(studies, tissue_budget=24, tissue_val_budget=6)
    given, problems = [], []

    def ask(number):
        try:
            given.extend(next_region(task, client=f"client {number}", image=image).region for image in images)
        except Exception as error:
            problems.append(error)

    images = [None, "a", None, "b"]
    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(given) == len(set(given)) == 24


def test_it_takes_no_time(task):
    prepare_query(task)
    started = time.perf_counter()
    for i in range(5):
        next_region(task, client=f"client {i}")
    assert (time.perf_counter() - started) / 5 < 0.1


def test_slides_that_are_gone_are_passed_over(task, studies):
    prepare_query(task)
    of_a = [row for row in asked(task) if row.region.slide == "a.tif"]
    (studies / "a.tif").unlink()
    given = [next_region(task, client=f"client {i}") for i in range(6 - len(of_a))]
    assert "a.tif" not in {row.region.slide for row in given}
    with pytest.raises(RoundSpentError, match=rf"{len(of_a)} on slides that are gone \(a.tif\)"):
        next_region(task)


# -- on the slide that is open ----------------------------------------------------------------------------------------


def test_the_best_region_of_a_slide(task):
    prepare_query(task)
    wanted = next(row for row in asked(task) if row.region.slide == "c.tif")
    assert next_region(task, image="c").region == wanted.region
    assert next_region(task, image="c.tif").region.slide == "c.tif"


def test_a_picture_of_a_region_stands_for_its_slide(task, studies):
    Image.new("RGB", (64, 64)).save(studies / "c-patch-0_0_64_64.png")
    assert next_region(task, image="c-patch-0_0_64_64").region.slide == "c.tif"


def test_a_slide_without_a_region_takes_the_place_of_the_last(studies, model):
    task = tissue_site(
        studies, tissue_strategy="uncertainty", tissue_checkpoint=str(model), tissue_budget=3, tissue_val_budget=1
    )
    prepare_query(task)
    own = [row for row in asked(task) if row.region.slide == "a.tif"]
    for row in own:
        assert next_region(task, image="a", client=row.reason).region == row.region
    before = asked(task)
    found = next_region(task, image="a", client="ann")
    pool = pd.read_parquet(task.round_dir(0) / "pool.parquet")
    left = pool[(pool["slide"] == "a.tif") & ~pool["id"].isin([row.region.id for row in own])]
    assert found.region.id == left.sort_values("score").iloc[-1]["id"]
    assert found.reason.startswith(
        "asked for on this slide: the open region of a.tif that uncertainty scores highest ("
    )
    assert found.purpose == "train"
    last = max((row for row in before if row.purpose == "train" and row not in own), key=lambda row: row.rank)
    assert found.rank == last.rank
    after = asked(task)
    assert len(after) == len(before)
    assert last.region not in {row.region for row in after}
    assert Counter(row.purpose for row in after) == Counter(row.purpose for row in before)


def test_a_slide_that_came_later_gives_its_region_with_most_tissue(task, studies):
    prepare_query(task)
    write_slide(studies / "new.tif", slide_pixels(PATTERN))
    (studies / "slides.csv").write_text("slide,split\na,train\nb,train\nc,val\nnew,train\n")
    found = next_region(task, image="new")
    assert found.reason == "asked for on this slide: the open region of new.tif with the most tissue"


def test_a_region_of_a_slide_that_is_gone_is_given_up_first(task, studies):
    prepare_query(task)
    rows = [row for row in asked(task) if row.purpose == "train"]
    gone = rows[0].region.slide
    other = ({"a.tif", "b.tif"} - {gone}).pop()
    for _ in [row for row in rows if row.region.slide == other]:
        next_region(task, image=other)
    (studies / gone).unlink()
    found = next_region(task, image=other)
    assert found.rank in {row.rank for row in rows if row.region.slide == gone}


def test_a_slide_that_the_round_does_not_ask_for(task):
    prepare_query(task)
    answer(task, *asked(task))
    train(task)
    prepare_query(task)
    open_ = ", ".join(f"{n} on {s}" for s, n in Counter(row.region.slide for row in asked(task, 1)).most_common())
    with pytest.raises(
        RoundSpentError,
        match=rf"nothing is open on c.tif in round 1 \(it is held out, .*; open regions: {open_}. Ask for those",
    ):
        next_region(task, image="c")


def test_nothing_anywhere(task):
    for i in range(6):
        next_region(task, client=f"client {i}")
    with pytest.raises(RoundSpentError, match="nothing is open on a.tif; round 0 has given out its 6 regions"):
        next_region(task, image="a")


def test_an_unknown_slide(task):
    with pytest.raises(UnknownItemError, match="there is no slide 'x' in the studies folder"):
        next_region(task, image="x")


# -- the strategy -----------------------------------------------------------------------------------------------------


def test_another_strategy_before_anything_was_handed_out(studies, model):
    task = tissue_site(studies, tissue_checkpoint=str(model), tissue_val_budget=0, tissue_max_candidates=10)
    prepare_query(task)
    found = next_region(task, strategy="uncertainty")
    assert "entropy" in found.reason
    assert "goes on with" not in found.reason
    with task.ledger() as ledger:
        assert ledger.info()["strategy_round_0"] == "uncertainty"
    assert len(asked(task)) == 2


def test_another_strategy_afterwards_waits_for_the_next_round(task):
    next_region(task)
    rows = [row.region for row in asked(task)]
    found = next_region(task, strategy="tissue_uncertainty")
    assert found.reason.endswith(
        "(round 0 goes on with random, with which it began; uncertainty can choose in the next round)"
    )
    assert [row.region for row in asked(task)] == rows
    # What is kept is the reason of the choice.
    assert "goes on with" not in " ".join(row.reason for row in asked(task))


def test_a_strategy_that_cannot_work_leaves_the_query(studies, model):
    task = tissue_site(studies, tissue_budget=12, tissue_max_candidates=10)
    train(task, model)
    prepare_query(task)
    rows = asked(task, 1)
    with pytest.raises(StrategyError, match="tri_al_ood asks for nothing more"):
        next_region(task, strategy="tri_al_ood")
    assert asked(task, 1) == rows


def test_in_a_first_round_all_that_need_a_model_are_the_same(studies):
    task = tissue_site(studies, tissue_strategy="tri_al_quota")
    prepare_query(task)
    rows = asked(task)
    assert next_region(task, strategy="uncertainty").region == rows[0].region
    assert [row.region for row in asked(task)] == [row.region for row in rows]


def test_names_of_strategies(task):
    assert strategy_name(task, None) == "random"
    assert strategy_name(task, "tissue_tri_al_quota") == strategy_name(task, "tri_al_quota") == "tri_al_quota"
    for ask in (next_region, prepare_query):
        with pytest.raises(UnknownItemError, match="no tissue strategy 'osal_nd'; there are: badge, balanced, "):
            ask(task, strategy="osal_nd")


def test_an_open_slide_that_cannot_be_used_says_why(studies):
    write_slide(studies / "nowhere.tif", slide_pixels(("SS", "SS")), mpp=None)
    task = tissue_site(studies, tissue_budget=2, tissue_val_budget=0)
    candidate_regions(task)
    with pytest.raises(RoundSpentError, match=r"nowhere.tif cannot be used: the file records no .* --conf mpp 0\.25"):
        next_region(task, strategy=None, client=None, image="nowhere")
