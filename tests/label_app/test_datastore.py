# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel")

from tests.rounds.regions.small_site import box, geojson, make_site, plain_slide, qupath_xml
from tests.rounds.regions.small_site import feature as geojson_feature
from tral_monai.errors import AnnotationError, ConfigError, OutputError, UnknownItemError
from tral_monai.label_app.datastore import SlideDatastore
from tral_monai.rounds.regions.intake import sync_labels
from tral_monai.rounds.regions.site import AnnotationSite

TUMOR = [("Tumor", "Polygon", box(110, 110, 128, 128))]
BAD_NAMES = ["../x", "/etc/x", "a/b", "..", ".hidden", "a\\b", "a\x00b", "a\nb", ""]


@pytest.fixture
def site(tmp_path: Path) -> AnnotationSite:
    studies = tmp_path / "studies"
    studies.mkdir()
    return make_site(studies, "a.b.tif", "x.ome.tif")


@pytest.fixture
def store(site: AnnotationSite) -> SlideDatastore:
    return SlideDatastore(str(site.studies), site, auto_reload=False)


@pytest.fixture
def label(tmp_path: Path) -> Path:
    path = tmp_path / "upload.xml"
    path.write_text(qupath_xml(TUMOR))
    return path


def picture(tmp_path: Path, name: str = "up.png") -> Path:
    from PIL import Image

    Image.new("RGB", (64, 48), (200, 100, 150)).save(tmp_path / name)
    return tmp_path / name


def test_slides_of_every_kind_are_listed_by_their_name_without_the_last_suffix(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.b.tif", "x.ome.tif", "c.tiff", "d.TIF")
    for name in ("e.ndpi", "f.mrxs", "g.svs", "h.scn", "i.bif", "j.png", "k.jpg", "m.geojson", "n.xml", "o.csv"):
        (tmp_path / name).write_bytes(b"")
    store = SlideDatastore(str(tmp_path), site, auto_reload=False)
    assert sorted(store.list_images()) == ["a.b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "x.ome"]
    for identifier, name in (("a.b", "a.b.tif"), ("x.ome", "x.ome.tif"), ("x", "x.ome.tif"), ("c.tiff", "c.tiff")):
        assert store.get_image_uri(identifier) == str(tmp_path / name)
    assert store.get_image_uri("nobody") == ""
    assert store.status() == {"total": 11, "completed": 0, "label_tags": {}}
    stored = json.loads((tmp_path / "datastore_v2.json").read_text())
    assert stored["objects"]["a.b"]["image"]["ext"] == ".tif"
    with pytest.raises(UnknownItemError, match=r"there is no slide 'nobody'"):
        store.get_image_info("nobody")


def test_two_slides_that_differ_by_suffix_alone_keep_their_whole_names(tmp_path: Path) -> None:
    site = make_site(tmp_path, "a.tif", "a.tiff")
    store = SlideDatastore(str(tmp_path), site, auto_reload=False)
    assert sorted(store.list_images()) == ["a.tif", "a.tiff"]
    assert store.get_image_uri("a.tiff") == str(tmp_path / "a.tiff")
    upload = tmp_path / "up.xml"
    upload.write_text(qupath_xml([*TUMOR, ("Region", "Rectangle", box(100, 100, 200, 200))]))
    assert store.stored_label() == ""
    assert store.save_label("a.tiff", str(upload), "final", {}) == "a.tiff"
    assert store.stored_label() == "labels/final/a.tiff.xml"
    assert sync_labels(site)["tissue"].regions_answered == 1
    with site.tasks["tissue"].ledger() as ledger:
        assert [answer.region.slide for answer in ledger.answers()] == ["a.tiff"]


def test_a_submission_is_stored_and_a_resubmission_replaces_it(store: SlideDatastore, label: Path) -> None:
    assert store.save_label("a.b", str(label), "final", {"who": "me"}) == "a.b"
    kept = Path(store.get_label_uri("a.b", "final"))
    assert kept == Path(store.get_image_uri("a.b")).parent / "labels" / "final" / "a.b.xml"
    assert kept.read_text() == label.read_text()
    label.write_text(qupath_xml([*TUMOR, *TUMOR]))
    store.save_label("a.b", str(label), "final", {})
    assert kept.read_text().count("<Annotation ") == 2
    assert store.get_labeled_images() == ["a.b"]
    assert store.get_unlabeled_images() == ["x.ome"]
    assert store.get_labels_by_image_id("a.b") == {"final": "a.b"}
    assert store.datalist() == [{"image": store.get_image_uri("a.b"), "label": str(kept)}]
    assert store.datalist(full_path=False) == [{"image": "a.b.tif", "label": "labels/final/a.b.xml"}]


def test_a_dropped_geojson_is_listed_and_packed(store: SlideDatastore, site: AnnotationSite) -> None:
    with pytest.raises(UnknownItemError, match=r"no submitted label yet"):
        store.get_dataset_archive(None)
    (site.labels_dir / "a.b.geojson").write_text(geojson(geojson_feature("Tumor", box(0, 0, 9, 9))))
    store.refresh()
    assert store.get_label_uri("a.b", "final").endswith("labels/final/a.b.geojson")
    assert [Path(pair["label"]).name for pair in store.datalist()] == ["a.b.geojson"]
    archive = Path(store.get_dataset_archive(None))
    assert archive.stat().st_size > 0
    archive.unlink()


def test_deleting_a_label_forgets_what_it_said(store: SlideDatastore, site: AnnotationSite, label: Path) -> None:
    label.write_text(qupath_xml(TUMOR, roi=(100, 100, 256, 256)))
    store.save_label("a.b", str(label), "final", {})
    assert sync_labels(site)["tissue"].regions_answered == 1
    store.remove_label("a.b", "final")
    assert store.get_label_uri("a.b", "final") == ""
    with site.tasks["tissue"].ledger() as ledger:
        assert ledger.answers() == []
    with pytest.raises(UnknownItemError, match=r"there is no label of 'a\.b' under the tag 'final'"):
        store.remove_label("a.b", "final")


def test_qupaths_roi_submission_is_an_image_and_a_label_of_it(
    store: SlideDatastore, site: AnnotationSite, tmp_path: Path, label: Path
) -> None:
    name = "a.b-patch-100_100_256_256"
    assert store.add_image(name, str(picture(tmp_path)), {"bbox": [1], "who": "me"}) == name
    assert store.get_image_uri(name) == str(site.studies / f"{name}.png")
    info = store.get_image_info(name)
    assert info["region_level0"] == [100, 100, 256, 256]
    assert info["who"] == "me"
    assert "bbox" not in info
    assert sorted(store.list_images()) == ["a.b", "x.ome"]
    label.write_text(qupath_xml(TUMOR, roi=(100, 100, 256, 256)))
    assert store.save_label(name, str(label), "final", {}) == name
    assert sync_labels(site)["tissue"].regions_answered == 1
    store.add_image(name, str(picture(tmp_path)), {})  # the same region submitted again
    with pytest.raises(UnknownItemError, match=r"there is no slide 'gone'"):
        store.add_image("gone-patch-0_0_8_8", str(picture(tmp_path)), {})


def test_an_uploaded_picture_is_a_new_image_but_never_replaces_a_slide(
    store: SlideDatastore, site: AnnotationSite, tmp_path: Path
) -> None:
    upload = picture(tmp_path)
    assert store.add_image("new", str(upload), {}) == "new"
    assert "new" in store.list_images()
    assert store.add_image("new", str(upload), {}) == "new"  # the same again does no harm
    before = (site.studies / "a.b.tif").read_bytes()
    with pytest.raises(ConfigError, match=r"there is a slide 'a\.b\.tif' already, and slides are not replaced"):
        store.add_image("a.b", str(upload), {})
    other = plain_slide(tmp_path / "other.tif", side_px=256)
    with pytest.raises(ConfigError, match=r"slides are not replaced"):
        store.add_image("a.b", str(other), {})
    assert (site.studies / "a.b.tif").read_bytes() == before
    with pytest.raises(ConfigError, match=r"expected an image that ends in .*, but '\.exe' came"):
        store.add_image("virus", str(shutil.copy(upload, tmp_path / "v.exe")), {})


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_name_leads_out_of_the_folder(
    store: SlideDatastore, site: AnnotationSite, tmp_path: Path, label: Path, name: str
) -> None:
    upload = picture(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*") if path.name not in (".lock", "up.png"))
    message = r"expected the name of an image, without path separators"
    if name:  # without a name, the file's own is taken
        with pytest.raises(ConfigError, match=message):
            store.add_image(name, str(upload), {})
    for act in (
        lambda: store.save_label(name, str(label), "final", {}),
        lambda: store.remove_label(name, "final"),
        lambda: store.remove_image(name),
        lambda: store.update_image_info(name, {}),
        lambda: store.get_image_info(name),
    ):
        with pytest.raises(ConfigError, match=message):
            act()
    assert store.get_image_uri(name) == ""
    assert store.get_label_uri(name, "final") == ""
    assert sorted(path for path in tmp_path.rglob("*") if path.name not in (".lock", "up.png")) == before


@pytest.mark.parametrize("tag", ["../final", "a/b", "", "a.b", "fin al", "final\n", "é"])
def test_no_tag_leads_out_of_the_folder(store: SlideDatastore, label: Path, tag: str) -> None:
    for act in (
        lambda: store.save_label("a.b", str(label), tag, {}),
        lambda: store.remove_label("a.b", tag),
    ):
        with pytest.raises(ConfigError, match=r"a tag may hold letters, digits, _ and - only"):
            act()
    assert store.get_label_uri("a.b", tag) == ""


def test_links_are_read_as_slides_but_nothing_is_written_or_read_through_others(
    tmp_path: Path, site: AnnotationSite, label: Path
) -> None:
    outside = tmp_path / "archive"
    outside.mkdir()
    plain_slide(outside / "0815.tif")
    (site.studies / "linked.tif").symlink_to(outside / "0815.tif")
    secret = outside / "secret.xml"
    secret.write_text("secret")
    (site.labels_dir / "a.b.xml").symlink_to(secret)
    shutil.rmtree(site.studies / "labels" / "original", ignore_errors=True)
    (site.studies / "labels" / "elsewhere").symlink_to(outside)
    store = SlideDatastore(str(site.studies), site, auto_reload=False)
    assert store.get_image_uri("linked") == str(site.studies / "linked.tif")  # not 0815, which no viewer knows
    assert store.get_label_uri("a.b", "final") == ""
    assert store.datalist() == []
    with pytest.raises(ConfigError, match=r"labels/elsewhere is a link out of the studies folder"):
        store.save_label("a.b", str(label), "elsewhere", {})
    store.save_label("a.b", str(label), "final", {})  # takes the link's place
    assert secret.read_text() == "secret"
    assert Path(store.get_label_uri("a.b", "final")).read_text() == label.read_text()
    store.remove_image("linked")
    assert not (site.studies / "linked.tif").exists()
    assert (outside / "0815.tif").is_file()


def test_a_label_that_cannot_be_used_leaves_the_earlier_one(store: SlideDatastore, tmp_path: Path, label: Path) -> None:
    store.save_label("a.b", str(label), "final", {})
    good = label.read_text()
    kept = Path(store.get_label_uri("a.b", "final"))
    bad = tmp_path / "bad.xml"
    for text, message in (
        (good[:-30], r"not valid XML"),
        (f'<!DOCTYPE a [<!ENTITY e "x">]>{good[good.index("<ASAP") :]}', r"declares a document type or entities"),
        (qupath_xml([]), r"nothing in the labels of a\.b\.tif has an area on the slide"),
        (qupath_xml([("Tumor", "Polygon", box(5000, 5000, 9, 9))]), r"it lies outside of the slide"),
    ):
        bad.write_text(text)
        with pytest.raises(AnnotationError, match=message):
            store.save_label("a.b", str(bad), "final", {})
    with pytest.raises(AnnotationError, match=r"expected a label file that ends in .*, but 'a\.b\.csv\.gz' came"):
        store.save_label("a.b", str(shutil.copy(label, tmp_path / "x.csv.gz")), "final", {})
    with pytest.raises(UnknownItemError, match=r"there is no slide 'nobody'"):
        store.save_label("nobody", str(label), "final", {})
    assert kept.read_text() == good
    assert sorted(path.name for path in kept.parent.iterdir()) == ["a.b.xml"]


def test_a_full_disk_leaves_the_earlier_label(
    store: SlideDatastore, label: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_label("a.b", str(label), "final", {})
    good = label.read_text()
    label.write_text(qupath_xml([*TUMOR, *TUMOR]))

    def full(source: Path, target: Path) -> None:
        target.write_text("<ASAP")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OutputError, match=r"cannot write a\.b\.xml: No space left on device"):
        store.save_label("a.b", str(label), "final", {})
    kept = Path(store.get_label_uri("a.b", "final"))
    assert kept.read_text() == good
    assert [path.name for path in kept.parent.iterdir()] == ["a.b.xml"]


def test_stored_information_never_hides_what_a_strategy_answers(store: SlideDatastore) -> None:
    store.update_image_info("a.b", {"id": 1, "bbox": 2, "score": 3, "path": "/etc", "stain": "HE"})
    info = store.get_image_info("a.b")
    assert info["stain"] == "HE"
    assert info["path"] == store.get_image_uri("a.b")
    assert not {"id", "bbox", "score"} & info.keys()
    with pytest.raises(UnknownItemError, match=r"there is no slide 'nobody'"):
        store.update_image_info("nobody", {})


def test_two_processes_lose_none_of_each_others_remarks(
    store: SlideDatastore, site: AnnotationSite, label: Path
) -> None:
    other = SlideDatastore(str(site.studies), site, auto_reload=False)  # as a training's process has it
    for number in range(5):
        store.update_image_info("a.b", {f"server{number}": number})
        other.update_image_info("a.b", {f"training{number}": number})
    assert len([key for key in other.get_image_info("a.b") if key.startswith(("server", "training"))]) == 10
    store.save_label("a.b", str(label), "final", {})
    other.update_label_info("a.b", "final", {"seen": True})
    store.refresh()
    assert store.get_label_info("a.b", "final")["seen"] is True
    with pytest.raises(UnknownItemError, match=r"there is no label of 'x\.ome' under the tag 'final'"):
        store.update_label_info("x.ome", "final", {})


def test_requests_on_many_threads_do_not_get_in_each_others_way(store: SlideDatastore, label: Path) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(4):
                store.save_label("a.b", str(label), "final", {})
                store.update_image_info("x.ome", {f"n{number}": turn})
                store.get_image_info("a.b")
                store.refresh()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [store.get_image_info("x.ome")[f"n{number}"] for number in range(4)] == [3, 3, 3, 3]


def test_a_slide_that_is_gone_takes_no_label_with_it(store: SlideDatastore, site: AnnotationSite, label: Path) -> None:
    label.write_text(qupath_xml(TUMOR, roi=(100, 100, 256, 256)))
    store.save_label("a.b", str(label), "final", {})
    sync_labels(site)
    (site.studies / "a.b.tif").rename(site.studies.parent / "a.b.tif")
    store.refresh()
    assert store.list_images() == ["x.ome"]
    assert (site.labels_dir / "a.b.xml").is_file()
    assert sync_labels(site)["tissue"].changed == ()
    (site.studies.parent / "a.b.tif").rename(site.studies / "a.b.tif")
    store.refresh()
    assert store.get_labeled_images() == ["a.b"]
    with site.tasks["tissue"].ledger() as ledger:
        assert len(ledger.answers()) == 1


def test_a_damaged_datastore_file_is_named(site: AnnotationSite) -> None:
    (site.studies / "datastore_v2.json").write_text('{"name": ')
    with pytest.raises(ConfigError, match=r"datastore_v2\.json in the studies folder is damaged .* delete it"):
        SlideDatastore(str(site.studies), site, auto_reload=False)


@pytest.mark.parametrize("params", [[1], "text", 3])
def test_parameters_that_are_no_mapping_are_refused(
    store: SlideDatastore, tmp_path: Path, label: Path, params: Any
) -> None:
    store.save_label("a.b", str(label), "final", {})
    message = r"expected .* as a JSON object such as \{\}, but"
    for act in (
        lambda: store.save_label("a.b", str(label), "final", params),
        lambda: store.add_image("new", str(picture(tmp_path)), params),
        lambda: store.update_image_info("a.b", params),
        lambda: store.update_label_info("a.b", "final", params),
    ):
        with pytest.raises(ConfigError, match=message):
            act()


def test_a_malformed_label_is_called_by_the_name_that_the_annotator_knows(store: SlideDatastore, label: Path) -> None:
    label.write_text("<ASAP")
    with pytest.raises(AnnotationError, match=r"^a\.b\.xml, line 1"):
        store.save_label("a.b", str(label), "final", {})


def test_listing_hundreds_of_pictures_looks_at_the_slides_once(
    store: SlideDatastore, site: AnnotationSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        (site.studies / f"a.b-patch-{number}_0_8_8.png").write_bytes(b"")
        (site.labels_dir / f"a.b-patch-{number}_9_8_8.xml").write_bytes(b"")  # of a picture that is gone
    looks = []
    entries = site.catalog.entries
    monkeypatch.setattr(site.catalog, "entries", lambda: looks.append(1) or entries())
    store.refresh()
    assert len(looks) <= 3
    assert store.get_image_info("a.b-patch-7_0_8_8")["region_level0"] == [7, 0, 8, 8]


def test_dropped_in_slides_and_labels_are_seen_while_running(site: AnnotationSite, tmp_path: Path) -> None:
    store = SlideDatastore(str(site.studies), site)
    try:
        plain_slide(tmp_path / "late.tif", side_px=256).rename(site.studies / "late.tif")
        dropped = geojson(geojson_feature("Tumor", box(0, 0, 9, 9)), geojson_feature("Region", box(0, 0, 256, 256)))
        (site.labels_dir / "a.b.geojson").write_text(dropped)
        end = time.monotonic() + 20
        while time.monotonic() < end and not ("late" in store.list_images() and store.get_labeled_images()):
            time.sleep(0.05)
        assert "late" in store.list_images()
        assert store.get_labeled_images() == ["a.b"]
        with site.tasks["tissue"].ledger() as ledger:  # nobody has asked for it to be taken in
            while time.monotonic() < end and not ledger.answers():
                time.sleep(0.05)
            assert [answer.region.bbox_level0 for answer in ledger.answers()] == [(0, 0, 256, 256)]
    finally:
        store._observer.stop()
        store._observer.join()
