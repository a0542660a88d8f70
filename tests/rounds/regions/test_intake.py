# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import gzip
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rounds.regions.small_site import CONF, ask, box, feature, geojson, make_site, plain_slide, qupath_xml
from tral_monai.errors import AnnotationError, BusyError, LedgerError, MissingMppError, UnknownItemError
from tral_monai.rounds.regions import intake
from tral_monai.rounds.regions.identity import site_identity
from tral_monai.rounds.regions.intake import check_submission, sync_labels
from tral_monai.rounds.regions.region import Region, RegionAnswer
from tral_monai.rounds.regions.settings import Task, read_settings
from tral_monai.rounds.regions.site import AnnotationSite
from tral_monai.rounds.run_lock import RunLock

REGION = ("Region", "Rectangle", box(0, 0, 256, 256))
TUMOR = ("Tumor", "Polygon", box(0, 0, 128, 128))
STROMA = ("Stroma", "Polygon", box(0, 0, 128, 256))


@pytest.fixture
def site(tmp_path: Path) -> AnnotationSite:
    return make_site(tmp_path, tasks="tissue", val_fraction="0")


def answers(site: AnnotationSite, task: Task = "tissue") -> list[RegionAnswer]:
    with site.tasks[task].ledger() as ledger:
        return ledger.answers()


def names(site: AnnotationSite) -> list[str]:
    return [name for answer in answers(site) for name, _ in answer.shapes]


def test_a_new_file_answers_and_the_report_says_so(site: AnnotationSite) -> None:
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, STROMA, ("Fat", "Polygon", box(300, 300, 9, 9))]))
    report = sync_labels(site, client="anna")["tissue"]
    assert (report.regions_answered, report.labels) == (1, 2.0)
    assert report.set_aside == {"Fat": 1}
    assert report.unknown_names == ("Fat",)
    assert report.changed == ("labels/final/a.xml",)
    assert report.message == (
        "tissue: 1 region answered, tiles: 2. Set aside: 1 'Fat' (see set_aside.csv). No rule for the class 'Fat': "
        "correct the name, or add it to the class map (classes here: Tumor, Stroma)."
    )
    assert json.loads(json.dumps(report.to_dict()))["message"] == report.message
    with site.tasks["tissue"].ledger() as ledger:
        submission = ledger.submissions()["labels/final/a.xml"]
    assert (submission.slide, submission.client, submission.set_aside) == ("a.tif", "anna", {"Fat": 1})
    with (site.folder / "tissue" / "set_aside.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["file", "slide", "class", "objects", "why"],
            ["labels/final/a.xml", "a.tif", "Fat", "1", "no rule for this name"],
        ]
    again = sync_labels(site)["tissue"]
    assert (again.changed, again.message) == ((), "tissue: nothing new.")


def test_who_submits_is_told_of_the_submission_also_where_somebody_else_has_taken_it_in(site: AnnotationSite) -> None:
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, TUMOR]))
    sync_labels(site, client="ben")  # asks for a sample in this very moment
    report = sync_labels(site, client="anna", submitted="labels/final/a.xml")["tissue"]
    assert (report.regions_answered, report.changed) == (1, ("labels/final/a.xml",))
    with site.tasks["tissue"].ledger() as ledger:
        assert ledger.submissions()["labels/final/a.xml"].client == "anna"
        assert len(ledger.answers()) == 1


def test_nothing_is_read_or_hashed_again_while_nothing_changes(
    site: AnnotationSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, TUMOR]))
    sync_labels(site)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(intake, "file_sha256", never)
    assert sync_labels(site)["tissue"].changed == ()
    monkeypatch.undo()


def test_a_file_that_is_submitted_again_answers_what_was_asked_since(site: AnnotationSite) -> None:
    text = qupath_xml([REGION, TUMOR, ("Stroma", "Polygon", box(512, 512, 128, 128))])
    (site.labels_dir / "a.xml").write_text(text)
    assert sync_labels(site)["tissue"].regions_answered == 1
    ask(site, "tissue", Region("a.tif", 512, 512, 256, 256))
    assert sync_labels(site)["tissue"].changed == ()  # nobody has looked at the whole of it
    (site.labels_dir / "new.xml").write_text(text)
    (site.labels_dir / "new.xml").replace(site.labels_dir / "a.xml")
    assert sync_labels(site)["tissue"].regions_answered == 2
    assert names(site) == ["Tumor", "Stroma"] or names(site) == ["Stroma", "Tumor"]


def test_resubmission_replaces_and_deletion_forgets(site: AnnotationSite) -> None:
    path = site.labels_dir / "a.xml"
    path.write_text(qupath_xml([REGION, TUMOR]))
    sync_labels(site)
    assert names(site) == ["Tumor"]
    path.write_text(qupath_xml([REGION, STROMA]))
    assert sync_labels(site)["tissue"].regions_answered == 1
    assert names(site) == ["Stroma"]
    path.unlink()
    assert sync_labels(site)["tissue"].changed == ("labels/final/a.xml",)
    assert answers(site) == []
    with (site.folder / "tissue" / "set_aside.csv").open() as stream:
        assert len(stream.readlines()) == 1


LEFT, RIGHT = Region("a.tif", 0, 0, 256, 256), Region("a.tif", 512, 0, 256, 256)
ANNAS = ("Tumor", "Polygon", box(10, 10, 128, 128))
BENS = ("Stroma", "Polygon", box(520, 10, 128, 128))


def answered(site: AnnotationSite) -> dict[Region, list[str]]:
    return {answer.region: [name for name, _ in answer.shapes] for answer in answers(site)}


def test_two_annotators_of_a_slide_lose_nothing_of_each_others(site: AnnotationSite) -> None:
    ask(site, "tissue", LEFT, RIGHT)
    path = site.labels_dir / "a.xml"
    drawn = ("Region", "Rectangle", box(0, 512, 100, 100))
    path.write_text(qupath_xml([ANNAS, drawn]))
    assert sync_labels(site)["tissue"].regions_answered == 2
    # Ben's outline of the tissue has no class, and that of his tumour reaches over Anna's region a little.
    tissue = ("", "Polygon", box(0, 0, 1000, 1000))
    path.write_text(qupath_xml([BENS, tissue]))
    report = sync_labels(site)["tissue"]
    assert report.regions_answered == 1
    assert report.problems == (
        "2 regions that the label before it answered hold nothing in this one; their answers are kept (to take them "
        "back, delete the label or submit the region itself)",
    )
    assert report.message.endswith(f"1 problem: {report.problems[0]}")
    everything = {LEFT: ["Tumor"], RIGHT: ["Stroma"], Region("a.tif", 0, 512, 100, 100): []}
    assert answered(site) == everything
    path.write_text(qupath_xml([ANNAS, drawn]))  # Anna submits again, and Ben once more
    sync_labels(site)
    assert answered(site) == everything
    path.write_text(qupath_xml([("Tumor", "Polygon", box(520, 10, 128, 128))]))
    sync_labels(site)
    assert answered(site) == {**everything, RIGHT: ["Tumor"]}
    with site.tasks["tissue"].ledger() as ledger:
        assert list(ledger.submissions()) == ["labels/final/a.xml#3", "labels/final/a.xml"]
        assert len(ledger.table("labels")) == 3
    assert sync_labels(site)["tissue"].changed == ()
    path.unlink()
    sync_labels(site)
    assert answered(site) == {}


def test_one_annotator_corrects_a_region_or_takes_it_back(site: AnnotationSite) -> None:
    ask(site, "tissue", LEFT, RIGHT)
    path = site.labels_dir / "a.xml"
    path.write_text(qupath_xml([ANNAS, BENS]))
    sync_labels(site)
    for labels, expected in (
        ([("Stroma", "Polygon", box(10, 10, 50, 50)), BENS], {LEFT: ["Stroma"], RIGHT: ["Stroma"]}),
        ([("Region", "Rectangle", box(0, 0, 256, 256)), BENS], {LEFT: [], RIGHT: ["Stroma"]}),
        ([("", "Polygon", ANNAS[2]), BENS], {RIGHT: ["Stroma"]}),  # its class was taken away
    ):
        path.write_text(qupath_xml(labels))
        assert sync_labels(site)["tissue"].problems == ()
        assert answered(site) == expected
    path.write_text(qupath_xml([ANNAS]))
    assert "1 region that the label before it answered holds nothing" in sync_labels(site)["tissue"].problems[0]
    assert answered(site) == {LEFT: ["Tumor"], RIGHT: ["Stroma"]}
    (site.labels_dir / "a-patch-512_0_256_256.xml").write_text(qupath_xml([], roi=(512, 0, 256, 256)))
    sync_labels(site)
    assert answered(site) == {LEFT: ["Tumor"], RIGHT: []}  # the region itself was submitted


def test_a_drawn_region_that_is_moved_is_one_region(site: AnnotationSite) -> None:
    path = site.labels_dir / "a.xml"
    path.write_text(qupath_xml([("Region", "Rectangle", box(0, 0, 200, 200))]))
    sync_labels(site)
    path.write_text(qupath_xml([("Region", "Rectangle", box(60, 0, 200, 200))]))
    assert sync_labels(site)["tissue"].problems == ()
    assert list(answered(site)) == [Region("a.tif", 60, 0, 200, 200)]


def test_a_geojson_export_replaces_the_one_before_it_as_a_whole(site: AnnotationSite) -> None:
    ask(site, "tissue", LEFT, RIGHT)
    path = site.labels_dir / "a.geojson"
    path.write_text(geojson(feature("Tumor", ANNAS[2])))
    sync_labels(site)
    path.write_text(geojson(feature("Stroma", BENS[2])))
    assert sync_labels(site)["tissue"].problems == ()
    assert answered(site) == {RIGHT: ["Stroma"]}


def test_other_classes_than_those_of_the_rounds_change_nothing(site: AnnotationSite, tmp_path: Path) -> None:
    ask(site, "tissue", LEFT)
    (site.labels_dir / "a.xml").write_text(qupath_xml([ANNAS]))
    with site.tasks["tissue"].ledger() as ledger:
        ledger.begin(site_identity(site.tasks["tissue"]))
    sync_labels(site)
    other = AnnotationSite(tmp_path, read_settings({"tasks": "tissue", "tissue_classes": "Stroma", "val_fraction": 0}))
    with pytest.raises(
        LedgerError, match=r"were begun with other settings \(classes: \['Tumor', 'Stroma'\], now \['St"
    ):
        sync_labels(other)
    assert answered(site) == {LEFT: ["Tumor"]}
    assert sync_labels(site)["tissue"].changed == ()


def test_a_region_handed_out_is_answered_and_no_longer_reserved(site: AnnotationSite) -> None:
    region = Region("a.tif", 256, 0, 256, 256)
    ask(site, "tissue", region)
    with site.tasks["tissue"].ledger() as ledger:
        assert ledger.reserve_next(0, "anna", seconds=60) is not None
    (site.labels_dir / "a-patch-256_0_256_256.xml").write_text(qupath_xml([], roi=(256, 0, 256, 256)))
    sync_labels(site)
    with site.tasks["tissue"].ledger() as ledger:
        (asked,) = ledger.asked(0)
    assert (asked.answered, asked.reserved_by) == (True, None)
    assert answers(site)[0].shapes == ()


def test_files_of_every_kind_are_found(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.tif", "b.c.tif", "x.ome.tif", "d.tif", "e.tif", tasks="tissue")
    export = geojson(feature("Region", box(0, 0, 99, 99)))
    (site.labels_dir / "a.GeoJSON").write_text(export)
    (site.labels_dir / "b.c.json").write_text(export)
    (site.labels_dir / "x.xml").write_text(qupath_xml([REGION]))  # the id with .ome left out
    (site.labels_dir / "d.geojson.gz").write_bytes(gzip.compress(export.encode()))
    (tmp_path / "e.geojson").write_text(export)  # beside its slide
    (tmp_path / "other.geojson").write_text("no slide's")
    (tmp_path / "a.xml").write_text("not a GeoJSON beside a slide")
    (site.labels_dir / ".part-a.xml").write_text("half")
    (site.labels_dir / "notes.txt").write_text("nothing")
    (site.labels_dir / "dir.xml").mkdir()
    report = sync_labels(site)["tissue"]
    assert sorted(report.changed) == [
        "e.geojson",
        "labels/final/a.GeoJSON",
        "labels/final/b.c.json",
        "labels/final/d.geojson.gz",
        "labels/final/x.xml",
    ]
    assert report.problems == ()
    assert {answer.region.slide for answer in answers(site)} == {"a.tif", "b.c.tif", "x.ome.tif", "d.tif", "e.tif"}


def test_an_annotation_of_areas_to_ask_in_is_no_submission(tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(geojson(feature("Tumor", box(0, 0, 99, 99))))
    (tmp_path / "slides.csv").write_text("slide,areas\na.tif,a.geojson\n")
    site = make_site(tmp_path, tasks="tissue")
    assert sync_labels(site)["tissue"].changed == ()


def test_a_file_that_cannot_be_read_leaves_what_it_said_and_stops_no_other(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.tif", "b.tif", tasks="tissue", val_fraction="0")
    path = site.labels_dir / "a.xml"
    path.write_text(qupath_xml([REGION, TUMOR]))
    sync_labels(site)
    path.write_text(qupath_xml([REGION, STROMA])[:-40])
    (site.labels_dir / "b.xml").write_text(qupath_xml([REGION, TUMOR]))
    (site.labels_dir / "nobody.xml").write_text(qupath_xml([REGION, TUMOR]))
    for changed in (("labels/final/b.xml",), ()):  # said each time
        report = sync_labels(site)["tissue"]
        assert report.changed == changed
        assert len(report.problems) == 2
        assert any("a.xml, line" in problem and "not valid XML" in problem for problem in report.problems)
        assert any("labels/final/nobody.xml: there is no slide 'nobody'" in one for one in report.problems)
    assert names(site) == ["Tumor", "Tumor"]
    path.write_text(qupath_xml([REGION, STROMA]))
    assert sync_labels(site)["tissue"].changed == ("labels/final/a.xml",)
    assert sorted(names(site)) == ["Stroma", "Tumor"]


def test_labels_of_a_slide_that_is_gone_are_kept(site: AnnotationSite, tmp_path: Path) -> None:
    path = site.labels_dir / "a.xml"
    path.write_text(qupath_xml([REGION, TUMOR]))
    sync_labels(site)
    (tmp_path / "a.tif").rename(tmp_path / "a.away")
    path.write_text(qupath_xml([REGION, STROMA]))
    report = sync_labels(site)["tissue"]
    assert report.changed == ()
    assert "there is no slide 'a'" in report.problems[0]
    assert report.problems[0].endswith("what it said before is kept")
    path.unlink()
    sync_labels(site)
    assert names(site) == ["Tumor"]
    (tmp_path / "a.away").rename(tmp_path / "a.tif")
    sync_labels(site)  # now the slide is there, and its label is not
    assert names(site) == []


def test_a_labels_folder_that_is_gone_takes_nothing_with_it(site: AnnotationSite) -> None:
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, TUMOR]))
    sync_labels(site)
    site.labels_dir.rename(site.labels_dir.with_name("away"))
    assert sync_labels(site)["tissue"].problems == ("the folder labels/final is gone; what was submitted is kept",)
    assert names(site) == ["Tumor"]


def test_a_new_rule_takes_in_what_was_set_aside(tmp_path: Path) -> None:
    site = make_site(tmp_path, tasks="tissue", tissue_classes="Stroma", val_fraction="0")
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, TUMOR, ("Stroma", "Polygon", box(128, 0, 9, 9))]))
    assert sync_labels(site)["tissue"].unknown_names == ("Tumor",)
    assert names(site) == ["ignored", "Stroma"]
    later = AnnotationSite(tmp_path, read_settings({**CONF, "tasks": "tissue", "val_fraction": "0"}))
    assert sync_labels(later)["tissue"].unknown_names == ()
    assert names(later) == ["Tumor", "Stroma"]


def test_lost_notes_and_lost_ledgers_are_made_again_from_the_files(site: AnnotationSite) -> None:
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, TUMOR]))
    sync_labels(site)
    (site.folder / "intake" / "files.json").write_text("{ cut off")
    sync_labels(site)
    assert names(site) == ["Tumor"]
    for path in (site.folder / "tissue").glob("ledger.sqlite*"):
        path.unlink()
    assert sync_labels(site)["tissue"].regions_answered == 1
    assert names(site) == ["Tumor"]


def test_the_newest_file_counts_where_two_answer_one_region(site: AnnotationSite) -> None:
    (site.labels_dir / "a.geojson").write_text(geojson(feature("Region", REGION[2]), feature("Tumor", TUMOR[2])))
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, STROMA]))
    os.utime(site.labels_dir / "a.xml", (1, 1))
    sync_labels(site)
    assert names(site) == ["Tumor"]


def test_each_task_takes_its_own_from_one_file(tmp_path: Path) -> None:
    site = make_site(tmp_path, val_fraction="0")
    lymphocyte = ("Lymphocyte", "Polygon", box(10, 10, 20, 20))
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, TUMOR, lymphocyte, ("Fat", "Polygon", box(9, 9, 9, 9))]))
    report = sync_labels(site)
    assert (report["tissue"].labels, report["nuclei"].labels) == (1.0, 2.0)
    assert [name for name, _ in answers(site, "nuclei")[0].shapes] == ["Lymphocyte", "ignored"]
    assert [name for name, _ in answers(site, "tissue")[0].shapes] == ["Tumor", "ignored"]
    assert report["tissue"].unknown_names == report["nuclei"].unknown_names == ("Fat",)
    assert report["nuclei"].message.startswith("nuclei: 1 region answered, nuclei: 2.")


def sync(studies: Path) -> None:
    sync_labels(AnnotationSite(studies, read_settings({**CONF, "tasks": "tissue", "val_fraction": "0"})))


def test_threads_and_processes_take_turns(site: AnnotationSite, tmp_path: Path) -> None:
    (site.labels_dir / "a.xml").write_text(qupath_xml([REGION, TUMOR]))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            sync_labels(site)
        except BaseException as error:
            errors.append(error)

    context = multiprocessing.get_context("fork")
    workers: list[threading.Thread] = [threading.Thread(target=work) for _ in range(3)]
    process = context.Process(target=sync, args=(tmp_path,))
    process.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    process.join()
    assert (errors, process.exitcode) == ([], 0)
    with site.tasks["tissue"].ledger() as ledger:
        assert list(ledger.submissions()) == ["labels/final/a.xml"]
        assert len(ledger.table("labels")) == 1


def test_whoever_waits_too_long_is_told(site: AnnotationSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_PATIENCE_S", 0.05)
    with RunLock(site.folder / "intake"), pytest.raises(BusyError, match=r"label files are being taken in already"):
        sync_labels(site)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: path, UnknownItemError, r"there is no slide 'b'"),
        (lambda path: path.rename(path.with_suffix(".txt")), AnnotationError, r"ends in \.xml, \.geojson, \.json"),
    ],
)
def test_a_submission_is_refused_before_it_is_stored(
    site: AnnotationSite,
    tmp_path: Path,
    make: Callable[[Path], Path],
    error: type[Exception],
    message: str,
) -> None:
    path = tmp_path / "up.xml"
    path.write_text(qupath_xml([REGION, TUMOR]))
    with pytest.raises(error, match=message):
        check_submission(site, "b", make(path))


def test_what_a_check_looks_at(site: AnnotationSite, tmp_path: Path) -> None:
    path = tmp_path / "up.xml"
    path.write_text(qupath_xml([TUMOR]))
    assert check_submission(site, "a", path).slide == "a.tif"
    path.write_text(qupath_xml([], roi=(0, 0, 9, 9)))  # a negative
    assert check_submission(site, "a-patch-0_0_9_9", path).roi == Region("a.tif", 0, 0, 9, 9)
    path.write_text(qupath_xml([REGION]))
    assert len(check_submission(site, "a", path).region_shapes) == 1
    path.write_text(qupath_xml([("Tumor", "Line", [(0, 0), (9, 9)])]))
    with pytest.raises(AnnotationError, match=r"nothing in the labels of a\.tif has an area on the slide"):
        check_submission(site, "a", path)
    path.write_text("<ASAP")
    with pytest.raises(AnnotationError, match=r"^a\.xml, line 1.* not valid XML"):
        check_submission(site, "a", path, name="a.xml")
    plain_slide(tmp_path / "n.tif", mpp=None)
    path.write_text(qupath_xml([TUMOR]))
    with pytest.raises(MissingMppError, match=r"n\.tif"):
        check_submission(site, "n", path)
