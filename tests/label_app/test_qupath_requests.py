# SPDX-License-Identifier: Apache-2.0
"""QuPath's requests, byte by byte, against the real server."""

import http.client
import io
import threading
import time

import numpy as np
import pytest
import shapely
from PIL import Image

from tests.label_app.annotator import Annotator, grey_png, region_shape, tiny_cohort_truth
from tests.label_app.qupath_requests import QuPath, QuPathError, Shape, asap_xml, multipart_data
from tests.label_app.sites import DOTTED

pytest.importorskip("monailabel")


@pytest.fixture(scope="module")
def qupath(label_server):
    return QuPath(label_server.url)


@pytest.fixture(scope="module")
def truth():
    return tiny_cohort_truth()


def square(x, y, side, name="Stroma"):
    return Shape(name, [(x, y), (x + side, y), (x + side, y + side), (x, y + side)])


def polygons(root):
    return [
        (a.get("Name"), shapely.Polygon([(float(c.get("X")), float(c.get("Y"))) for c in a.iter("Coordinate")]))
        for a in root.iter("Annotation")
    ]


# -- the requests themselves ------------------------------------------------------------------------------------------


def test_a_region_s_label_is_relative_to_it_and_leaves_out_what_is_centred_elsewhere():
    xml = asap_xml([square(110.9, 220.2, 10), square(900, 900, 10, "Muscle")], (100, 200, 50, 50)).decode()
    assert '<Annotations Description="" H="50" Name="" W="50" X="100" Y="200">' in xml
    assert '<Coordinate Order="0" X="10" Y="20" />' in xml
    assert "Muscle" not in xml
    with pytest.raises(ValueError, match="ZERO annotations"):
        asap_xml([square(900, 900, 10)], (100, 200, 50, 50))


def test_multipart_is_files_then_fields_with_nothing_after_the_last_boundary():
    body, content_type = multipart_data("12", {"label": ("a.xml", b"<x/>", "application/xml")}, {"params": "{}"})
    assert content_type == "multipart/form-data; boundary=12"
    assert body == (
        b'--12\r\nContent-Disposition: form-data; name="label"; filename="a.xml"\r\n'
        b"Content-Type: application/xml\r\n\r\n<x/>\r\n"
        b'--12\r\nContent-Disposition: form-data; name="params"\r\n\r\n{}\r\n--12--'
    )


# -- against the server -----------------------------------------------------------------------------------------------


def test_next_image_then_next_patch_gives_the_region_that_the_image_was_opened_for(qupath):
    image = qupath.next_image("tissue_random")
    assert qupath.image_exists(image["id"])
    patch = qupath.next_patch("tissue_random", image["id"], (1792, 1792))
    assert (patch["id"], patch["bbox"]) == (image["id"], image["bbox"])
    other = qupath.next_patch("tissue_random", image["id"], (1792, 1792))
    assert other["id"] == image["id"]
    assert other["bbox"] != image["bbox"]


def test_images_exist_by_their_file_name_without_the_last_suffix(qupath):
    assert qupath.image_exists("A-01")
    assert qupath.image_exists(DOTTED)
    assert not qupath.image_exists("nothing")


def test_a_slide_is_downloaded_whole_or_in_parts(qupath, label_server):
    file = (label_server.studies / "A-01.tif").read_bytes()
    connection = http.client.HTTPConnection("127.0.0.1", label_server.port, timeout=30)
    connection.request("GET", "/datastore/image?image=A-01")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, file)
    connection.request("GET", "/datastore/image?image=A-01", headers={"Range": "bytes=100-199"})
    response = connection.getresponse()
    assert (response.status, response.read()) == (206, file[100:200])
    connection.close()


def test_a_whole_slide_submission_answers_the_regions_in_which_something_is_drawn(qupath, label_server, truth):
    annotator = Annotator(truth)
    samples = [qupath.next_patch("tissue_random", "B-01", (1792, 1792)) for _ in range(3)]
    for number, sample in enumerate(samples, 1):
        answer = annotator.submit_slide(qupath, sample)
        # Regions that other tests were given on this slide hold nothing that is drawn here.
        assert answer["tissue"]["regions_answered"] == number
        assert answer["tissue"]["problems"] == []
    xml = (label_server.studies / "labels" / "final" / "B-01.xml").read_bytes()
    assert xml.count(b"<Annotation ") >= 3
    # The same file again answers the same; a smaller one, which may be a colleague's, takes nothing away.
    counted = qupath.info()["train_stats"]["tissue"]["regions_answered"]
    assert qupath.save_label("B-01", xml, "B-01")["tissue"]["regions_answered"] == 3
    assert qupath.info()["train_stats"]["tissue"]["regions_answered"] == counted
    answer = qupath.submit_slide("B-01", annotator.shapes("B-01", samples[0]["bbox"]))
    assert "2 regions that the label before it answered hold nothing in this one" in answer["tissue"]["problems"][0]
    assert qupath.info()["train_stats"]["tissue"]["regions_answered"] == counted


def test_a_region_submission_is_mapped_back_onto_its_slide(qupath, label_server):
    x, y, width, height = bbox = qupath.next_patch("tissue_random", DOTTED, (1792, 1792))["bbox"]
    shapes = [square(x + 8, y + 16, 100, "Muscle"), square(x + 150, y + 16, 64, "Gland")]
    before = qupath.info()["datastore"]["total"]
    name, answer = qupath.submit_region(DOTTED, bbox, shapes, grey_png(width, height))
    assert name == f"{DOTTED}-patch-{x}_{y}_{width}_{height}"
    assert qupath.info()["datastore"]["total"] == before, "pictures of regions are no slides"
    tissue = answer["tissue"]
    assert tissue["regions_answered"] == 1
    assert tissue["unknown_names"] == ["Gland"]
    assert tissue["set_aside"] == {"Gland": 1}
    assert "'Gland'" in tissue["message"]
    xml = (label_server.studies / "labels" / "final" / f"{name}.xml").read_text()
    assert 'X="8" Y="16"' in xml


def test_a_region_looked_at_in_which_nothing_is_to_be_found_is_answered(qupath):
    bbox = qupath.next_patch("tissue_random", "A-01", (1792, 1792))["bbox"]
    _, answer = qupath.submit_region("A-01", bbox, [region_shape(bbox)], grey_png(bbox[2], bbox[3]))
    assert answer["tissue"]["regions_answered"] == 1
    assert answer["tissue"]["labels"] == 0


def test_what_is_drawn_outside_of_every_region_is_kept_and_does_not_count(qupath):
    bbox = qupath.next_patch("tissue_random", "B-01", (1792, 1792))["bbox"]
    x, y, *_ = bbox
    inside, corner = square(x + 8, y + 8, 64), square(1700, 1700, 60)
    if x + 256 > 1700 and y + 256 > 1700:
        corner = square(8, 8, 60)
    answer = qupath.submit_slide("B-01", [inside, corner])
    assert answer["tissue"]["set_aside"].get("Stroma", 0) <= 1  # another test's region may hold the corner
    assert answer["tissue"]["regions_answered"] >= 1


def test_an_inference_of_a_region_has_shapes_of_the_model_s_classes_within_it(qupath):
    labels = {*qupath.info()["models"]["tissue"]["labels"]}
    found = polygons(qupath.infer("tissue", "A-02", (512, 256, 640, 512)))
    assert found
    assert {name for name, _ in found} <= labels
    around = shapely.box(512, 256, 1152, 768).buffer(1)
    assert all(polygon.is_valid and around.covers(polygon) for _, polygon in found)


def test_a_slide_with_dots_in_its_name_is_inferred_as_a_slide(qupath):
    assert polygons(qupath.infer("tissue", DOTTED, (256, 256, 512, 512)))


def test_a_picture_of_a_slide_that_the_server_does_not_have_is_inferred_from_its_corner(qupath):
    noise = np.random.default_rng(0)  # a picture with tissue-like colours
    pixels = np.array([190, 70, 130]) + noise.integers(-20, 20, (384, 384, 1))
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, format="PNG")
    root = qupath.infer("tissue", "elsewhere", (5000, 6000, 384, 384), picture=stream.getvalue())
    found = polygons(root)
    assert found
    assert all(shapely.box(-1, -1, 385, 385).covers(polygon) for _, polygon in found)


def test_info_is_there_within_a_second_while_a_slide_is_inferred(qupath, label_server):
    done = []

    def infer():
        done.append(polygons(qupath.infer("tissue", "A-01", (0, 0, 0, 0))))

    label_server.get("/info/")
    thread = threading.Thread(target=infer)
    thread.start()
    waits = []
    while thread.is_alive():
        begin = time.monotonic()
        label_server.get("/info/")
        waits.append(time.monotonic() - begin)
        time.sleep(0.05)
    thread.join()
    assert done[0]
    assert len(waits) >= 3, "the slide was inferred too soon to say anything"
    assert float(np.median(waits)) < 1.0
    assert max(waits) < 3.0  # one second on a machine that has nothing else to do


def test_an_error_is_a_sentence_that_the_dialog_can_show(qupath):
    with pytest.raises(QuPathError, match="no model|no trained model") as error:
        qupath.infer("nuclei", "A-01", (0, 0, 256, 256))
    assert error.value.status == 404
    with pytest.raises(QuPathError, match="no strategy 'wsi_random'") as error:
        qupath.next_image("wsi_random")
    assert error.value.status == 404
