# SPDX-License-Identifier: Apache-2.0
"""The client of 3D Slicer, CVAT and DSA (monailabel.client) against the real server."""

import json
import urllib.request

import pytest
import shapely
from PIL import Image

pytest.importorskip("monailabel")

from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException

from tests.label_app.annotator import Annotator, coco_truth, grey_png, region_shape, tiny_cohort_truth
from tests.label_app.qupath_requests import Shape, asap_xml
from tests.label_app.sites import DOTTED


@pytest.fixture(scope="module")
def client(label_server):
    return MONAILabelClient(label_server.url, client_id="anna")


@pytest.fixture(scope="module")
def truth():
    return tiny_cohort_truth()


def test_info_is_what_slicer_and_qupath_need(client):
    info = client.info()
    assert {*info} >= {"name", "labels", "models", "trainers", "strategies", "scoring", "train_stats", "datastore"}
    assert not client.auth_enabled()
    assert list(info["models"]) == ["tissue"], "there is no model of nuclei yet"
    model = info["models"]["tissue"]
    assert (model["type"], model["dimension"], model["pathology"], model["nuclick"]) == ("segmentation", 2, True, False)
    assert all(isinstance(value, int) for value in model["labels"].values())
    assert {"Blood", "Damaged", "Muscle", "Stroma", "Urothelium"} <= {*model["labels"]}
    assert [*info["trainers"]] == ["tissue", "nuclei"]
    assert {"tissue_random", "tissue_tri_al_quota", "nuclei_osal_nd"} <= {*info["strategies"]}
    assert next(iter(info["strategies"])) == "tissue_random", "a dialog shows the site's own choice first"
    for trainer in info["trainers"].values():
        for name, value in trainer["config"].items():
            # QuPath shows a text field, a tick box or a list; of a list of strings it takes the first.
            assert isinstance(value, (bool, int, float, str)) or {type(one) for one in value} == {str}, name
    assert info["datastore"]["total"] >= 9  # five slides, four fields, and what other tests upload


def test_next_sample_names_the_region_and_why(client, label_server):
    sample = client.next_sample("tissue_random", {})
    assert (label_server.studies / sample["name"]).samefile(sample["path"])
    assert all(isinstance(number, int) for number in sample["bbox"])
    assert len(sample["bbox"]) == 4
    x, y, width, height = sample["bbox"]
    assert 0 <= x <= x + width <= 1792
    assert 0 <= y <= y + height <= 1792
    assert 240 <= width <= 300  # 64 um at 0.25 and 0.23 um per pixel
    assert sample["reason"]
    assert isinstance(sample["score"], float)
    assert "class_asked" in sample


def test_two_clients_get_different_regions_and_a_client_is_not_given_the_same_again(label_server):
    anna, ben = (MONAILabelClient(label_server.url, client_id=name) for name in ("anna", "ben"))
    boxes = [(s["id"], *s["bbox"]) for who in (anna, ben) * 3 for s in [who.next_sample("tissue_random", {})]]
    assert len({*boxes}) == 6


def test_the_next_sample_of_an_open_slide_lies_on_it(client):
    for image in ("B-01", DOTTED):
        assert client.next_sample("tissue_random", {"image": image})["id"] == image


@pytest.mark.parametrize("path", ["/activelearning/nothing", "/infer/nothing", "/infer/wsi/nothing"])
def test_an_unknown_name_is_a_404_that_names_those_that_there_are(client, label_server, path):
    status, answer = label_server.answer("POST", f"{path}?image=A-01", {})
    assert status in (404, 422)
    if status == 404:
        assert "'nothing'" in answer["detail"]
        assert "tissue" in answer["detail"]


def test_a_label_comes_back_as_it_was_submitted_and_is_forgotten_when_deleted(client, label_server, truth, tmp_path):
    sample = client.next_sample("tissue_random", {"image": "A-01"})
    file = tmp_path / "label.xml"
    file.write_bytes(asap_xml(Annotator(truth).shapes("A-01", sample["bbox"]), (0, 0, 0, 0)))
    before = client.info()["train_stats"]["tissue"]["regions_answered"]
    answer = client.save_label("A-01", str(file))
    assert (answer["image"], answer["label"]) == ("A-01", "A-01")
    assert answer["tissue"]["regions_answered"] == 1
    assert client.info()["train_stats"]["tissue"]["regions_answered"] == before + 1
    downloaded = client.download_label("A-01", "final")
    with open(downloaded, "rb") as stream:  # noqa: PTH123 - a path as the client gives it
        assert stream.read() == file.read_bytes()
    objects = client.datastore()["objects"]
    assert objects["A-01"]["labels"]["final"]["ext"] == ".xml"
    request = urllib.request.Request(f"{label_server.url}/datastore/label?id=A-01&tag=final", method="DELETE")
    with urllib.request.urlopen(request) as response:
        assert response.status == 200
    assert client.info()["train_stats"]["tissue"]["regions_answered"] == before
    with pytest.raises(MONAILabelClientException, match="404"):
        client.download_label("A-01", "final")


def test_wsi_inference_answers_for_dsa_and_as_json_inside_the_region(client):
    region = {"location": [512, 512], "size": [600, 600], "level": 0, "min_poly_area": 30}
    _, text = client.wsi_infer("tissue", "A-01", dict(region), output="dsa")
    elements = json.loads(text)["elements"]
    assert elements
    for element in elements:
        assert (element["type"], element["closed"]) == ("polyline", True)
        assert element["label"]["value"] == element["group"]
        assert all(512 - 128 <= x <= 1112 + 128 and 512 - 128 <= y <= 1112 + 128 for x, y, _ in element["points"])
    _, text = client.wsi_infer("tissue", "A-01", dict(region), output="json")
    answer = json.loads(text)
    (annotation,) = [one["annotation"] for one in answer["annotations"]]
    assert {"pre", "infer", "post", "total"} <= {*answer["annotations"][0]["latencies"]}
    area = sum(shapely.Polygon(c).area for e in annotation["elements"] for c in e["contours"])
    assert 0 < area <= 728**2


def test_an_uploaded_picture_and_a_session_are_inferred_on(client, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(grey_png(256, 256))
    label_map, result = client.infer("tissue", "", {"result_extension": ".png", "mpp": 0.25}, file=str(picture))
    with Image.open(label_map) as pixels:
        assert pixels.size == (256, 256)
    assert result["model"] == "tissue"
    session = client.create_session(str(picture))["session_id"]
    _, text = client.wsi_infer("tissue", "", {"mpp": 0.25}, output="json", session_id=session)
    assert json.loads(text)["size"] == [256, 256]
    client.remove_session(session)
    with pytest.raises(MONAILabelClientException, match="404"):
        client.get_session(session)


def test_an_uploaded_image_is_one_of_the_site(client, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(grey_png(256, 256))
    assert client.upload_image(str(picture), "uploaded_picture")["image"] == "uploaded_picture"
    assert client.next_sample("nuclei_random", {"image": "uploaded_picture"})["id"] == "uploaded_picture"


def test_nuclei_are_asked_for_in_fields_and_counted(client, fields, tmp_path):
    truth = coco_truth(fields)
    sample = client.next_sample("nuclei_osal_nd", {})
    assert 0 < sample["bbox"][2] <= 160  # 32 um, and what is left over at the edge
    name = sample["id"]
    if name not in truth:
        sample = client.next_sample("nuclei_osal_nd", {"image": sorted(truth)[0]})
        name = sample["id"]
    x, y, width, height = sample["bbox"]
    inside = [
        Shape(class_name, outline.exterior.coords[:-1])
        for class_name, outline in truth[name]
        if x + 1 <= outline.centroid.x < x + width - 1 and y + 1 <= outline.centroid.y < y + height - 1
    ]
    file = tmp_path / "nuclei.xml"
    # With its outline, so that it is answered also where all its nuclei are of other classes.
    file.write_bytes(asap_xml([*inside, region_shape(sample["bbox"])], (0, 0, 0, 0)))
    report = client.save_label(name, str(file))["nuclei"]
    assert report["regions_answered"] == 1
    assert report["labels"] == len(inside)


def test_scoring_summarises_the_regions_scores(client, label_server):
    answer = label_server.ask("POST", "/scoring/tissue_regions?run_sync=true", {})
    assert answer
    assert label_server.answer("POST", "/scoring/nothing?run_sync=true", {})[0] in (404, 422)
