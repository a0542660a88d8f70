# SPDX-License-Identifier: Apache-2.0
import threading
import time
from collections import Counter

import pandas as pd
import pytest
from PIL import Image

from tests.inference.colour_slides import slide_pixels, write_slide
from tests.rounds.regions.colour_site import PATTERN, tissue_site
from tests.rounds.regions.round_steps import answer, asked, train
from tests.rounds.regions.round_steps import studies as studies
from tests.rounds.regions.round_steps import task as task
from tests.rounds.regions.test_tissue_outputs import model as model
from tral_monai.errors import RoundSpentError, StrategyError, UnknownItemError
from tral_monai.rounds.regions.candidates import candidate_regions
from tral_monai.rounds.regions.query import next_region, prepare_query, strategy_name

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
