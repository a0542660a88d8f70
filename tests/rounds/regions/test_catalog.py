# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tests.rounds.regions.small_site import plain_slide
from tral_monai.errors import ConfigError, MissingMppError, PatientOverlapError, UnknownItemError
from tral_monai.rounds.regions.catalog import SlideCatalog, slide_id
from tral_monai.rounds.regions.region import Region


def catalog_of(folder: Path, *names: str, **options: object) -> SlideCatalog:
    for name in names:
        (folder / name).write_bytes(b"")
    return SlideCatalog(folder, folder / "own" / "sides.json", **options)  # type: ignore[arg-type]


def table(folder: Path, text: str) -> None:
    (folder / "slides.csv").write_text(text)


def test_slides_of_every_kind_are_listed_and_nothing_else(tmp_path: Path) -> None:
    slides = ["a.b.svs", "c.ome.tif", "d.TIFF", "e.ndpi", "f.mrxs", "g.png"]
    others = [".hidden.svs", "notes.txt", "a.xml", "a.geojson", "a.b-patch-0_0_10_10.png", "c-patch-1_2_3_4.png"]
    (tmp_path / "folder.svs").mkdir()
    catalog = catalog_of(tmp_path, *slides, *others, "lonely-patch-0_0_10_10.png", mpp=0.5)
    entries = catalog.entries()
    assert list(entries) == [*slides, "lonely-patch-0_0_10_10.png"]  # of no slide here: an image of its own
    assert [entry.id for entry in entries.values()][:2] == ["a.b", "c.ome"]
    assert {(entry.mpp, entry.fallback_mpp) for entry in entries.values()} == {(None, 0.5)}
    assert entries["g.png"].name == "g.png"
    assert entries["g.png"].patient == "g"
    assert slide_id("a.b.svs") == "a.b"


def test_slides_may_come_and_go(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, "a.svs")
    (tmp_path / "b.svs").write_bytes(b"")
    assert list(catalog.entries()) == ["a.svs", "b.svs"]
    (tmp_path / "a.svs").unlink()
    assert list(catalog.entries()) == ["b.svs"]
    with pytest.raises(ConfigError, match=r"the studies folder .* cannot be read \(No such file"):
        SlideCatalog(tmp_path / "no", tmp_path / "sides.json").entries()


def test_a_slide_is_found_by_id_name_and_without_its_inner_suffix(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, "a.b.svs", "c.ome.tif", "d.tif", "d.svs")
    for asked, name in (("a.b", "a.b.svs"), ("a.b.svs", "a.b.svs"), ("c.ome", "c.ome.tif"), ("c", "c.ome.tif")):
        assert catalog.find(asked).name == name
    with pytest.raises(UnknownItemError, match=r"'d' may be any of d\.svs, d\.tif; rename one, or ask by the whole"):
        catalog.find("d")
    with pytest.raises(UnknownItemError, match=r"there is no slide 'x' .* \(slides there: a\.b, c\.ome, d, d\)"):
        catalog.find("x")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UnknownItemError, match=r"slides there: none"):
        catalog_of(empty).find("x")


def test_of_many_slides_some_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownItemError, match=r"s00, .*, s09 and 2 more\)"):
        catalog_of(tmp_path, *(f"s{n:02d}.svs" for n in range(12))).find("x")


def test_an_uploaded_picture_is_mapped_back_by_its_name(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, "a.b.svs", "c.ome.tif", "own-patch-1_1_1_1.svs")
    assert catalog.patch_origin("a.b-patch-10_20_30_40") == Region("a.b.svs", 10, 20, 30, 40)
    assert catalog.patch_origin("c-patch-10_20_30_40") == Region("c.ome.tif", 10, 20, 30, 40)
    assert catalog.patch_origin("a.b") is None
    assert catalog.patch_origin("own-patch-1_1_1_1") is None  # a slide that is called so
    with pytest.raises(UnknownItemError, match=r"there is no slide 'gone'"):
        catalog.patch_origin("gone-patch-0_0_8_8")


def test_a_slide_is_opened_with_the_mpp_that_is_given(tmp_path: Path) -> None:
    plain_slide(tmp_path / "a.tif", mpp=0.5, side_px=256)
    plain_slide(tmp_path / "b.tif", mpp=None, side_px=256)
    with catalog_of(tmp_path).open("a.tif") as slide:
        assert slide.mpp == pytest.approx(0.5)
    with pytest.raises(MissingMppError, match=r"b\.tif"):
        catalog_of(tmp_path).open("b.tif")
    for name, mpp in (("a.tif", 0.5), ("b.tif", 0.1)):  # the site's own is for slides that record none
        with catalog_of(tmp_path, mpp=0.1).open(name) as slide:
            assert slide.mpp == pytest.approx(mpp)
    table(tmp_path, "slide,mpp\na,0.3\nb,0.2\n")
    for name, mpp in (("a.tif", 0.3), ("b.tif", 0.2)):  # the table's is for this very slide
        with catalog_of(tmp_path, mpp=0.1).open(name) as slide:
            assert slide.mpp == mpp
    with pytest.raises(UnknownItemError, match=r"'c\.tif' is no longer in the studies folder; put it back"):
        catalog_of(tmp_path).open("c.tif")


# -- sides ------------------------------------------------------------------------------------------------------------


def test_a_quarter_of_the_patients_is_held_out_for_good(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, *(f"s{n}.svs" for n in range(8)))
    sides = catalog.sides()
    assert sorted(sides.values()) == ["train"] * 6 + ["val"] * 2
    assert SlideCatalog(tmp_path, tmp_path / "own" / "sides.json", seed=7).sides() == sides  # kept, whatever the seed
    for number in range(8, 12):
        (tmp_path / f"s{number}.svs").write_bytes(b"")
    later = catalog.sides()
    assert {name: later[name] for name in sides} == sides
    assert sorted(later.values()) == ["train"] * 9 + ["val"] * 3


def test_a_patient_stands_on_one_side(tmp_path: Path) -> None:
    names = [f"TCGA-AA-{patient:04d}-{slide}.svs" for patient in range(4) for slide in range(3)]
    sides = catalog_of(tmp_path, *names).sides()
    assert {entry.patient for entry in catalog_of(tmp_path).entries().values()} == {
        f"TCGA-AA-{n:04d}" for n in range(4)
    }
    of_patient = [{sides[name] for name in names[start : start + 3]} for start in range(0, 12, 3)]
    assert sorted(map(len, of_patient)) == [1, 1, 1, 1]
    assert sum(side == {"val"} for side in of_patient) == 1


def test_a_single_slide_is_divided_where_it_is_cut(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, "a.svs")
    assert catalog.sides() == {"a.svs": "split"}
    left, right, across = (Region("a.svs", x, 0, 100, 50) for x in (0, 200, 150))
    assert catalog.purpose(right) == "train"  # nothing is cut yet
    catalog.cut("a.svs", "x", 200)
    catalog.cut("a.svs", "y", 7)  # the first cut holds
    assert [catalog.purpose(region) for region in (left, right, across)] == ["train", "val", None]
    assert catalog.parts(right) == [(right, "val")]
    assert catalog.parts(across) == [
        (Region("a.svs", 150, 0, 50, 50), "train"),
        (Region("a.svs", 200, 0, 50, 50), "val"),
    ]
    with pytest.raises(UnknownItemError, match=r"'b\.svs' is no longer in the studies folder"):
        catalog.purpose(Region("b.svs", 0, 0, 1, 1))


def test_a_cut_may_run_across(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, "a.svs")
    catalog.sides()
    catalog.cut("a.svs", "y", 30)
    assert catalog.parts(Region("a.svs", 5, 20, 50, 40)) == [
        (Region("a.svs", 5, 20, 50, 10), "train"),
        (Region("a.svs", 5, 30, 50, 30), "val"),
    ]


def test_a_divided_slide_stays_divided_when_others_come(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, "a.svs")
    catalog.sides()
    (tmp_path / "b.svs").write_bytes(b"")
    assert catalog.sides() == {"a.svs": "split", "b.svs": "val"}


def test_nothing_is_held_out_where_nothing_shall_be(tmp_path: Path) -> None:
    assert catalog_of(tmp_path, "a.svs", val_fraction=0.0).sides() == {"a.svs": "train"}
    (tmp_path / "b.svs").write_bytes(b"")
    assert catalog_of(tmp_path, val_fraction=0.0).sides() == {"a.svs": "train", "b.svs": "train"}


def test_a_damaged_record_of_sides_is_no_reason_to_draw_again(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path, "a.svs", "b.svs")
    catalog.sides()
    (tmp_path / "own" / "sides.json").write_text("{")
    with pytest.raises(ConfigError, match=r"sides\.json is damaged .* it says which slides are held out"):
        catalog.sides()


# -- the slides table -------------------------------------------------------------------------------------------------


def test_the_table_says_patient_side_mpp_and_areas(tmp_path: Path) -> None:
    (tmp_path / "areas.geojson").write_text("{}")
    table(tmp_path, "Slide , patient,split,mpp,areas\na,P1,val,0.5,areas.geojson\nb.svs,P2,,,\nnot there,P3,train,,\n")
    entries = catalog_of(tmp_path, "a.svs", "b.svs", "c.svs", mpp=0.25).entries()
    first = entries["a.svs"]
    assert (first.patient, first.split, first.mpp, first.areas) == ("P1", "val", 0.5, tmp_path / "areas.geojson")
    second, third = entries["b.svs"], entries["c.svs"]
    assert (second.patient, second.split, second.mpp, second.areas) == ("P2", None, None, None)
    assert third.patient == "c"
    assert catalog_of(tmp_path).sides()["a.svs"] == "val"


def test_a_table_elsewhere_has_its_own_paths(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "x.geojson").write_text("{}")
    (tmp_path / "lists" / "t.csv").write_text("slide,areas\na,x.geojson\n")
    catalog = catalog_of(tmp_path, "a.svs", table=tmp_path / "lists" / "t.csv")
    assert catalog.entries()["a.svs"].areas == tmp_path / "lists" / "x.geojson"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name,patient\na,P\n",
            r"slides\.csv: expected the column slide and any of .*, but found \['name', 'patient'\]",
        ),
        ("slide,age\na,5\n", r"expected the column slide"),
        ("slide,split\na,test\n", r"slides\.csv, line 2: split must be train, val or empty, but is 'test'"),
        ("slide,mpp\n\na,0.5 um\n", r"line 3: mpp must be micrometres per pixel, such as 0\.25, but is '0\.5 um'"),
        ("slide,mpp\na,nan\n", r"mpp must be micrometres"),
        ("slide,areas\na,no.xml\n", r"line 2: there is no annotation file 'no\.xml' of the areas"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path: Path, text: str, message: str) -> None:
    table(tmp_path, text)
    with pytest.raises(ConfigError, match=message):
        catalog_of(tmp_path, "a.svs").entries()


def test_a_table_may_not_put_one_patient_on_both_sides(tmp_path: Path) -> None:
    table(tmp_path, "slide,patient,split\na,P,train\nb,P,val\n")
    with pytest.raises(
        PatientOverlapError, match=r"'a\.svs' into train and 'b\.svs' into val, but both are of patient 'P'"
    ):
        catalog_of(tmp_path, "a.svs", "b.svs").entries()
