# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import shapely

from tests.rounds.regions.small_site import ask, box, feature, geojson, make_site, qupath_xml
from tral_monai.errors import AnnotationError, UnknownItemError
from tral_monai.rounds.regions.label_file import read_label_file
from tral_monai.rounds.regions.region import Region, RegionAnswer
from tral_monai.rounds.regions.settings import Task
from tral_monai.rounds.regions.site import AnnotationSite
from tral_monai.rounds.regions.submission import SetAside, TaskSubmission, read_submission

ASKED = Region("a.tif", 256, 256, 256, 256)
EXPORTED = {"metadata": {"tral_monai": "open"}, "isLocked": True}


@pytest.fixture
def site(tmp_path: Path) -> AnnotationSite:
    return make_site(tmp_path, val_fraction="0")


def said(site: AnnotationSite, text: str, *, image: str = "a", suffix: str = ".xml") -> dict[Task, TaskSubmission]:
    path = site.folder / f"upload{suffix}"
    path.write_text(text)
    asked = {}
    for name, task in site.tasks.items():
        with task.ledger() as ledger:
            asked[name] = ledger.asked()
    return read_submission(read_label_file(path, site.catalog, image), site.tasks, asked, site.catalog)


def regions(submission: TaskSubmission) -> list[tuple[int, int, int, int]]:
    return [answer.region.bbox_level0 for answer in submission.answers]


def only(submission: TaskSubmission) -> RegionAnswer:
    (answer,) = submission.answers
    return answer


def boxes(answer: RegionAnswer) -> list[tuple[str, tuple[float, ...]]]:
    return [(name, geometry.bounds) for name, geometry in answer.shapes]


# -- a whole slide ----------------------------------------------------------------------------------------------------


def test_polygons_are_clipped_to_the_asked_region_and_the_rest_is_set_aside(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    text = qupath_xml(
        [
            ("Tumor", "Polygon", box(384, 256, 256, 128)),  # half of it in the region: 128 x 128 px
            ("Stroma", "Rectangle", box(256, 384, 128, 128)),
            ("Stroma", "Rectangle", box(800, 800, 50, 50)),
            ("Fat", "Polygon", box(900, 0, 50, 50)),
        ]
    )
    result = said(site, text)["tissue"]
    answer = only(result)
    assert answer.region == ASKED
    assert answer.purpose == "train"
    assert boxes(answer) == [("Tumor", (384, 256, 512, 384)), ("Stroma", (256, 384, 384, 512))]
    assert (answer.cost_labels, answer.cost_minutes) == (2.0, 1.0)  # two tiles of 128 px at 40x
    assert result.set_aside == (
        SetAside("Fat", 1, "no rule for this name"),
        SetAside("Stroma", 1, "outside of every annotated region"),
    )
    assert result.unknown_names == ("Fat",)


def test_an_asked_region_without_an_object_is_not_answered(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    assert said(site, qupath_xml([("Tumor", "Polygon", box(0, 0, 100, 100))]))["tissue"].answers == ()


def test_a_neighbours_outline_that_reaches_in_does_not_answer_a_region(site: AnnotationSite) -> None:
    neighbour = Region("a.tif", 512, 256, 256, 256)
    ask(site, "tissue", ASKED, neighbour)
    spill = qupath_xml([("Tumor", "Polygon", box(300, 300, 222, 100))])  # 10 px over the border
    assert regions(said(site, spill)["tissue"]) == [ASKED.bbox_level0]
    # A tenth of the neighbour's 65,536 px: 26 columns of 256 px.
    large = qupath_xml([("Tumor", "Polygon", box(256, 256, 282, 256))])
    assert regions(said(site, large)["tissue"]) == [ASKED.bbox_level0, neighbour.bbox_level0]


def test_an_unknown_name_keeps_its_place_in_an_answered_region(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    foreign = ("Fat", "Polygon", box(256, 256, 10, 10))
    assert said(site, qupath_xml([foreign]))["tissue"].answers == ()
    answer = only(said(site, qupath_xml([foreign, ("Tumor", "Polygon", box(300, 300, 128, 128))]))["tissue"])
    assert boxes(answer) == [("ignored", (256, 256, 266, 266)), ("Tumor", (300, 300, 428, 428))]
    assert answer.cost_labels == 1.0


def test_a_region_of_which_every_name_is_unknown_stays_open(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    mark = ("Region", "Rectangle", box(256, 256, 256, 256))
    only_strange = said(site, qupath_xml([mark, ("Fat", "Polygon", box(300, 300, 128, 128))]))["tissue"]
    assert only_strange.answers == ()
    assert only_strange.unknown_names == ("Fat",)
    assert only(said(site, qupath_xml([mark]))["tissue"]).shapes == ()  # looked at, and nothing there


def test_a_rule_of_the_class_map_names_the_class_and_carved_out_areas_stay(tmp_path: Path) -> None:
    rules = tmp_path / "map.yaml"
    rules.write_text(
        "classes: [Tumor]\nrules:\n  - {match: umor, class: Tumor}\n  - {match: ink, class: null}\n"
        "  - {match: invasive, class: Invasive}\ncarve_out: [Invasive]\n"
    )
    studies = tmp_path / "s"
    studies.mkdir()
    site = make_site(studies, tissue_classes="null", tissue_class_map=str(rules), tasks="tissue", val_fraction="0")
    ask(site, "tissue", ASKED)
    text = qupath_xml(
        [
            ("my tumor", "Polygon", box(256, 256, 128, 128)),
            ("invasive part", "Polygon", box(256, 256, 64, 64)),
            ("ink", "Polygon", box(400, 400, 9, 9)),
        ]
    )
    result = said(site, text)["tissue"]
    assert [name for name, _ in only(result).shapes] == ["Tumor", "Invasive", "ignored"]
    assert only(result).cost_labels == 1.0
    assert result.set_aside == (SetAside("ink", 1, "the class map leaves it out"),)
    assert result.unknown_names == ()


def test_an_asked_region_in_a_drawn_one_costs_nothing_beside_it(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    text = qupath_xml(
        [
            ("Region", "Rectangle", box(200, 200, 512, 512)),
            ("Tumor", "Polygon", box(256, 256, 128, 128)),
            ("Tumor", "Polygon", box(550, 550, 128, 128)),
        ]
    )
    asked, drawn = said(site, text)["tissue"].answers
    assert (asked.region, asked.cost_labels, asked.cost_minutes, len(asked.shapes)) == (ASKED, 0.0, 0.0, 1)
    assert (drawn.region.bbox_level0, drawn.cost_labels, drawn.cost_minutes) == ((200, 200, 512, 512), 2.0, 1.0)


# -- Region shapes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Region", "region", "REGION", "Region*", "Field"])
def test_an_empty_region_shape_is_a_negative_for_every_task(site: AnnotationSite, name: str) -> None:
    result = said(site, qupath_xml([(name, "Rectangle", box(100, 200, 300, 400))]))
    for task in ("tissue", "nuclei"):
        answer = only(result[task])
        assert answer.region == Region("a.tif", 100, 200, 300, 400)
        assert (answer.shapes, answer.cost_labels) == ((), 0.0)
        assert result[task].set_aside == ()


def test_a_region_shape_is_for_the_task_whose_objects_lie_in_it(site: AnnotationSite) -> None:
    text = qupath_xml(
        [
            ("Region", "Rectangle", box(0, 0, 256, 256)),
            ("Tumor", "Polygon", box(10, 10, 128, 128)),
            ("Region", "Rectangle", box(512, 512, 64, 64)),
            ("Lymphocyte", "Ellipse", [(530, 520), (540, 530), (530, 540), (520, 530)]),
            ("Region", "Rectangle", box(700, 700, 100, 100)),
            ("Fat", "Polygon", box(710, 710, 20, 20)),  # nobody's: it is not empty either
        ]
    )
    result = said(site, text)
    assert regions(result["tissue"]) == [(0, 0, 256, 256)]
    assert regions(result["nuclei"]) == [(512, 512, 64, 64)]
    assert result["tissue"].set_aside == (SetAside("Fat", 1, "no rule for this name"),)


def test_a_region_shape_around_an_asked_region_answers_that_even_when_empty(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    by_hand = qupath_xml([("Region", "Rectangle", box(254, 257, 258, 254))])  # a hand's tremble
    assert regions(said(site, by_hand)["tissue"]) == [ASKED.bbox_level0]
    assert said(site, by_hand)["nuclei"].answers == ()  # tissue asked for it
    around = qupath_xml([("Region", "Rectangle", box(200, 200, 400, 400)), ("Tumor", "Polygon", box(210, 210, 20, 20))])
    assert regions(said(site, around)["tissue"]) == [ASKED.bbox_level0, (200, 200, 400, 400)]


def test_of_a_region_that_is_no_rectangle_the_largest_inside_counts(site: AnnotationSite) -> None:
    corner = [(0.0, 0.0), (200.0, 0.0), (200.0, 100.0), (100.0, 100.0), (100.0, 400.0), (0.0, 400.0)]
    result = said(site, qupath_xml([("Region", "Polygon", corner)]))["tissue"]
    assert regions(result) == [(0, 0, 100, 400)]
    assert "the largest rectangle inside counts: [0, 0, 100, 400]" in result.problems[0]


def test_a_region_beyond_the_slide_is_clipped_to_it(site: AnnotationSite) -> None:
    result = said(site, qupath_xml([("Region", "Rectangle", box(900, 900, 400, 400))]))["tissue"]
    assert regions(result) == [(900, 900, 124, 124)]
    assert "reached beyond the slide and was clipped" in result.problems[0]


def test_a_region_across_the_cut_of_a_slide_is_two(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    site.catalog.sides()
    site.catalog.cut("a.tif", "x", 600)
    result = said(
        site,
        qupath_xml([("Region", "Rectangle", box(500, 0, 300, 100)), ("Tumor", "Polygon", box(500, 0, 300, 100))]),
    )["tissue"]
    found = {answer.region.bbox_level0: (answer.purpose, boxes(answer)) for answer in result.answers}
    assert found == {
        (500, 0, 100, 100): ("train", [("Tumor", (500, 0, 600, 100))]),
        (600, 0, 200, 100): ("val", [("Tumor", (600, 0, 800, 100))]),
    }


# -- exported rectangles ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "answered"),
    [
        ({}, False),
        ({"name": "Empty"}, True),
        ({"name": "empty"}, True),
        ({"title": "done"}, True),
        ({"title": "round 1, no. 2: Tumor DONE"}, True),
        ({"title": "to be done later"}, False),
    ],
)
def test_an_exported_rectangle_counts_once_somebody_says_so(
    site: AnnotationSite, changes: dict[str, str], answered: bool
) -> None:
    ask(site, "tissue", ASKED)
    changes = {"name": "Region", "title": "round 0, no. 1", **changes}
    mark = feature(changes["name"], box(256, 256, 256, 256), title=changes["title"], **EXPORTED)
    result = said(site, geojson(mark), suffix=".geojson")
    assert bool(result["tissue"].answers) is answered
    assert result["nuclei"].answers == ()
    assert result["tissue"].set_aside == ()


def test_an_exported_rectangle_counts_once_something_is_drawn_in_it(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    mark = feature("Region", box(256, 256, 256, 256), **EXPORTED)
    drawn = feature("Tumor", box(300, 300, 64, 64))
    assert boxes(only(said(site, geojson(mark, drawn), suffix=".geojson")["tissue"])) == [
        ("Tumor", (300, 300, 364, 364))
    ]
    moved = feature("Region", box(600, 600, 100, 100), **EXPORTED)
    assert said(site, geojson(moved), suffix=".geojson")["tissue"].answers == ()
    inside = feature("Tumor", box(610, 610, 20, 20))
    assert regions(said(site, geojson(moved, inside), suffix=".geojson")["tissue"]) == [(600, 600, 100, 100)]


# -- a part of a slide ------------------------------------------------------------------------------------------------


def test_a_roi_submission_lies_where_its_attributes_say(site: AnnotationSite) -> None:
    roi = (100, 200, 256, 256)
    text = qupath_xml([("Tumor", "Polygon", box(90, 210, 128, 128))], roi=roi)
    assert '<Coordinate Order="0" X="-10" Y="10"/>' in text  # relative to the region
    result = said(site, text, image="a-patch-100_200_256_256")["tissue"]
    answer = only(result)
    assert answer.region == Region("a.tif", *roi)
    assert boxes(answer) == [("Tumor", (100, 210, 218, 338))]
    assert result.problems == ()
    other = said(site, text, image="a-patch-0_0_9_9")["tissue"]
    assert regions(other) == [roi]
    assert "the file says that it is about [100, 200, 256, 256], but the image is called" in other.problems[0]
    assert regions(said(site, text)["tissue"]) == [roi]  # without the picture's name too


def test_a_picture_that_was_annotated_by_itself_lies_where_its_name_says(site: AnnotationSite) -> None:
    text = geojson(feature("Tumor", box(10, 10, 128, 128)))
    answer = only(said(site, text, image="a-patch-512_0_256_256", suffix=".geojson")["tissue"])
    assert answer.region == Region("a.tif", 512, 0, 256, 256)
    assert boxes(answer) == [("Tumor", (522, 10, 650, 138))]


def test_a_roi_without_objects_is_a_negative_for_both_tasks(site: AnnotationSite) -> None:
    result = said(site, qupath_xml([], roi=(0, 0, 64, 64)), image="a-patch-0_0_64_64")
    assert [regions(result[task]) for task in ("tissue", "nuclei")] == [[(0, 0, 64, 64)]] * 2
    ask(site, "nuclei", Region("a.tif", 0, 0, 64, 64))
    result = said(site, qupath_xml([], roi=(0, 0, 64, 64)), image="a-patch-0_0_64_64")
    assert [regions(result[task]) for task in ("tissue", "nuclei")] == [[], [(0, 0, 64, 64)]]


def test_a_roi_outside_of_the_slide_and_an_unknown_slide_are_errors(site: AnnotationSite) -> None:
    with pytest.raises(
        AnnotationError, match=r"its region \[2000, 0, 64, 64\] lies outside of the slide a\.tif of 1024"
    ):
        said(site, qupath_xml([], roi=(2000, 0, 64, 64)))
    for image in ("b", "b-patch-0_0_64_64"):
        with pytest.raises(UnknownItemError, match=r"there is no slide 'b'"):
            said(site, qupath_xml([]), image=image)


def test_an_inference_answer_has_whole_slide_coordinates(site: AnnotationSite) -> None:
    ask(site, "tissue", ASKED)
    text = qupath_xml([("Tumor", "Polygon", box(300, 300, 128, 128))])
    text = text.replace(
        'Description="" X="0" Y="0" W="0" H="0"', 'Description="" Model="m" X="256" Y="256" W="256" H="256"'
    )
    assert boxes(only(said(site, text)["tissue"])) == [("Tumor", (300, 300, 428, 428))]


# -- QuPath's shapes --------------------------------------------------------------------------------------------------


def test_qupaths_geometries_keep_their_holes_and_parts(site: AnnotationSite) -> None:
    ring = [*box(0, 0, 100, 100), (0, 0)]
    hole = [*box(20, 20, 60, 60), (20, 20)]
    island = [*box(200, 0, 10, 10), (200, 0)]
    text = qupath_xml([("Tumor", "Geometry", [*ring, *hole, *island]), ("Region", "Rectangle", box(0, 0, 256, 256))])
    ((_, geometry),) = only(said(site, text)["tissue"]).shapes
    assert geometry.area == 100 * 100 - 60 * 60 + 10 * 10
    assert not geometry.contains(shapely.Point(50, 50))


def test_lines_and_points_are_set_aside_and_a_crossing_outline_is_repaired(site: AnnotationSite) -> None:
    text = qupath_xml(
        [
            ("Region", "Rectangle", box(0, 0, 200, 200)),
            ("Tumor", "Polyline", [(0, 0), (50, 50), (90, 0)]),
            ("Tumor", "Line", [(0, 0), (50, 50)]),
            ("Tumor", "Polygon", [(0, 0), (100, 100), (100, 0), (0, 100)]),
            ("Tumor", "Polygon", [(0, 0), (100, 100)]),
            ("Stroma", "Polygon", box(2000, 2000, 5, 5)),
        ]
    )
    result = said(site, text)["tissue"]
    ((_, geometry),) = only(result).shapes
    assert geometry.area == 5000.0
    assert result.set_aside == (
        SetAside("Stroma", 1, "outside of the slide"),
        SetAside("Tumor", 2, "no area (a point, a line or nothing)"),
    )
    assert any("at least 3 points" in problem for problem in result.problems)
    assert any("not a valid polygon" in problem for problem in result.problems)


# -- nuclei -----------------------------------------------------------------------------------------------------------


def test_nuclei_belong_to_the_region_that_holds_their_centre_and_stay_whole(site: AnnotationSite) -> None:
    left, right = Region("a.tif", 0, 0, 100, 100), Region("a.tif", 100, 0, 100, 100)
    ask(site, "nuclei", left, right)
    text = geojson(
        feature("Lymphocyte", box(90, 10, 14, 10), kind="detection"),  # centre 97
        feature("Epithelial", box(95, 40, 10, 10), kind="detection"),  # centre 100: the right one's
        feature("Other", box(150, 10, 10, 10), kind="detection"),
        feature("Unknown", box(20, 20, 10, 10), kind="detection"),
        feature("Strange", box(20, 60, 10, 10), kind="detection"),
        feature(None, box(40, 60, 10, 10), kind="detection"),
        feature("Lymphocyte", box(500, 500, 10, 10), kind="detection"),
    )
    result = said(site, text, suffix=".geojson")
    first, second = result["nuclei"].answers
    assert boxes(first) == [
        ("Lymphocyte", (90, 10, 104, 20)),
        ("unknown", (20, 20, 30, 30)),
        ("ignored", (20, 60, 30, 70)),
        ("ignored", (40, 60, 50, 70)),
    ]
    assert boxes(second) == [("Epithelial", (95, 40, 105, 50)), ("unknown", (150, 10, 160, 20))]
    # 10 s to look around, 7 s per box, 2 s per class of a known one.
    assert (first.cost_labels, first.cost_minutes) == (4.0, pytest.approx((10 + 4 * 7 + 2) / 60))
    assert result["nuclei"].set_aside == (
        SetAside("(no class)", 1, "it has no class"),
        SetAside("Lymphocyte", 1, "outside of every annotated region"),
        SetAside("Strange", 1, "no rule for this name"),
    )
    assert result["nuclei"].unknown_names == ("Strange",)
    assert result["tissue"].answers == ()


def test_an_unclassed_nucleus_alone_does_not_answer_a_region(site: AnnotationSite) -> None:
    ask(site, "nuclei", Region("a.tif", 0, 0, 100, 100))
    assert said(site, geojson(feature(None, box(9, 9, 9, 9), kind="cell")), suffix=".geojson")["nuclei"].answers == ()


def test_of_a_cell_the_nucleus_counts(site: AnnotationSite) -> None:
    cell = feature("Lymphocyte", box(0, 0, 40, 40), kind="cell")
    cell["nucleusGeometry"] = feature(None, box(10, 10, 8, 8))["geometry"]
    bare = feature("Lymphocyte", box(50, 50, 20, 20), kind="cell")
    bare["nucleusGeometry"] = {"type": "Polygon", "coordinates": [[[1, 1]]]}
    ask(site, "nuclei", Region("a.tif", 0, 0, 100, 100))
    result = said(site, geojson(cell, bare), suffix=".geojson")["nuclei"]
    assert boxes(only(result)) == [("Lymphocyte", (10, 10, 18, 18))]
    assert result.set_aside == (SetAside("Lymphocyte", 1, "its nucleus has no usable outline"),)


def test_the_drawn_frame_of_a_next_sample_is_no_nucleus(site: AnnotationSite) -> None:
    """QuPath draws the region that a server hands out as an annotation without a class."""
    ask(site, "nuclei", Region("a.tif", 0, 0, 100, 100))
    text = geojson(feature(None, box(0, 0, 100, 100)), feature("Lymphocyte", box(10, 10, 10, 10)))
    assert boxes(only(said(site, text, suffix=".geojson")["nuclei"])) == [("Lymphocyte", (10, 10, 20, 20))]


def test_a_name_that_both_tasks_know_is_a_nucleus_only_where_it_is_small(tmp_path: Path) -> None:
    site = make_site(tmp_path, nuclei_classes="Tumor, Lymphocyte", val_fraction="0")
    text = qupath_xml(
        [
            ("Region", "Rectangle", box(0, 0, 900, 900)),
            ("Tumor", "Polygon", box(0, 0, 600, 100)),  # 150 µm: an area
            ("Tumor", "Polygon", box(700, 700, 40, 40)),
            ("Stroma", "Polygon", box(0, 400, 50, 50)),
        ]
    )
    result = said(site, text)
    assert boxes(only(result["nuclei"])) == [("Tumor", (700, 700, 740, 740))]
    assert result["nuclei"].set_aside == (SetAside("Tumor", 1, "larger than a nucleus (100 µm)"),)
    assert [name for name, _ in only(result["tissue"]).shapes] == ["Tumor", "Tumor", "Stroma"]
