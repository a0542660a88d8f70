# SPDX-License-Identifier: Apache-2.0
"""Wrong and hostile requests: no file outside of the studies and the app's folders is read or written; every refusal is
a sentence.

One test per endpoint that the app adds or overrides. A canary lies beside the studies folder, reachable by ``..``.
"""

import http.client
import io
import json
import tarfile
import time
from urllib.parse import quote

import pytest

from tests.label_app.annotator import grey_png, region_shape
from tests.label_app.qupath_requests import asap_xml, multipart_data

pytest.importorskip("monailabel")

SECRET = "the canary sings"
TAGS_OF_NOBODY = ("..", "../..", "final/../..", "/tmp", "a b", "x\x00")


@pytest.fixture(scope="module")
def canary(label_server):
    """A file outside, with names by which a request may try to reach it."""
    folder = label_server.studies.parent / "outside"
    folder.mkdir()
    for name in ("canary.txt", "canary.tif", "canary.xml", "canary.png", "canary.pt"):
        (folder / name).write_text(SECRET)
    return folder


@pytest.fixture
def untouched(canary, label_server):
    """After the test nothing outside has changed, nothing has come, and the answers told nothing of it."""
    before = snapshot(label_server, canary)
    answers = []
    yield answers
    assert snapshot(label_server, canary) == before
    assert all(SECRET not in text for _, text in answers)


def snapshot(server, canary):
    beside = {path: path.read_bytes() for path in canary.iterdir()}
    return beside, sorted(path.name for path in server.studies.parent.iterdir())


def ways_out(canary, name="canary.tif"):
    stem = name.rpartition(".")[0]
    return [
        str(canary / name),
        f"../outside/{name}",
        f"../outside/{stem}",
        f"labels/../../outside/{name}",
        f"..\\outside\\{name}",
        "/etc/passwd",
        "..",
        ".",
        f"A-01/../../outside/{stem}",
        f"A-01\x00{name}",
    ]


def send(server, method, path, body=None, content_type="application/json"):
    """Status and text of an answer; of what is not 200, the sentence is checked."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    connection.request(method, path, data, {"Content-Type": content_type} if data is not None else {})
    response = connection.getresponse()
    text = response.read().decode("utf-8", errors="replace")
    connection.close()
    return response.status, text


def refused(server, method, path, body=None, content_type="application/json", allowed=(400, 404, 405, 409, 422)):
    status, text = send(server, method, path, body, content_type)
    assert status in allowed, f"{method} {path}: {status} {text[:300]}\n{server.tail(5)}"
    if method != "HEAD":
        detail = json.loads(text)["detail"]
        assert detail
        if isinstance(detail, str):
            assert "Traceback" not in detail
            assert "Internal Server Error" not in detail
    return status, text


def upload(server, method, path, files, fields=None):
    body, content_type = multipart_data("boundary", files, fields or {"params": "{}"})
    return send(server, method, path, body, content_type)


def upload_refused(server, method, path, files, fields=None, **allowed):
    body, content_type = multipart_data("boundary", files, fields or {"params": "{}"})
    return refused(server, method, path, body, content_type, **allowed)


XML = asap_xml([region_shape((256, 256, 256, 256))], (0, 0, 0, 0))


# -- names that lead elsewhere ----------------------------------------------------------------------------------------


def test_activelearning(label_server, canary, untouched):
    for name in ways_out(canary):
        untouched.append(refused(label_server, "POST", "/activelearning/tissue_random", {"image": name}))
    for name in ("nothing", "..%2F..%2Fx", "tissue_random%00"):
        untouched.append(refused(label_server, "POST", f"/activelearning/{name}", {}))


def test_infer(label_server, canary, untouched):
    for name in ways_out(canary):
        fields = {"params": "{}"}
        path = f"/infer/tissue?output=json&image={quote(name, safe='')}"
        untouched.append(upload_refused(label_server, "POST", path, {}, fields))
        inside = {"params": json.dumps({"image": name})}
        untouched.append(upload_refused(label_server, "POST", "/infer/tissue?image=A-01&output=json", {}, inside))


def test_infer_writes_no_result_elsewhere(label_server, canary, untouched):
    for tag in ("..", "../../outside", str(canary)):
        params = {"params": json.dumps({"save_label": True, "label_tag": tag, "size": [64, 64]})}
        untouched.append(upload_refused(label_server, "POST", "/infer/tissue?image=A-01&output=json", {}, params))
    params = {"params": json.dumps({"result_extension": "/../../../outside/new.png", "mpp": 0.25})}
    files = {"file": ("picture.png", grey_png(128, 128), "image/png")}
    untouched.append(upload_refused(label_server, "POST", "/infer/tissue", files, params))


def test_infer_wsi(label_server, canary, untouched):
    for name in ways_out(canary):
        path = "/infer/wsi/tissue?output=json&image="
        untouched.append(refused(label_server, "POST", path + quote(name, safe=""), {"size": [64, 64]}))
        body = {"size": [64, 64], "params": {"image": name}}
        untouched.append(refused(label_server, "POST", path + "A-01", body))


def test_infer_wsi_v2(label_server, canary, untouched):
    for name in ways_out(canary):
        path = f"/infer/wsi_v2/tissue?output=asap&image={quote(name, safe='')}"
        untouched.append(upload_refused(label_server, "POST", path, {}, {"wsi": '{"size": [64, 64]}'}))
    files = {"file": ("../../../outside/new.png", grey_png(64, 64), "image/png")}
    fields = {"wsi": '{"params": {"mpp": 0.25}}'}
    status, text = upload(label_server, "POST", "/infer/wsi_v2/tissue?output=json", files, fields)
    assert status == 200, text


def test_infer_of_a_session(label_server, canary, untouched):
    for name in ("../../outside", "..", "a/b", str(canary)):
        path = f"/infer/wsi/tissue?output=json&session_id={quote(name, safe='')}"
        untouched.append(refused(label_server, "POST", path, {}))


def test_batch_infer(label_server, canary, untouched):
    untouched.append(refused(label_server, "POST", "/batch/infer/nothing?run_sync=true", {}))
    untouched.append(refused(label_server, "POST", "/batch/infer/tissue?run_sync=true&images=elsewhere", {}))
    for name in ways_out(canary):
        status, text = send(label_server, "POST", "/batch/infer/tissue?run_sync=true", {"images": [name]})
        untouched.append((status, text))
        if status == 200:
            assert "error" in json.loads(text)[name], text
        else:
            assert 400 <= status < 500
            assert json.loads(text)["detail"]


def test_train(label_server, canary, untouched):
    for name in ("nothing", "..%2Fx"):
        untouched.append(refused(label_server, "POST", f"/train/{name}", {}))
    for key in ("output_dir", "feature_dir", "train_samples", "checkpoint", "bundle_root", "max_epochs#x"):
        wrong = {key: str(canary / "new.pt")}
        untouched.append(refused(label_server, "POST", "/train/tissue?run_sync=true", wrong))


def test_datastore_image_put(label_server, canary, untouched):
    png = grey_png(16, 16)
    for name in ways_out(canary, "new.png"):
        path = f"/datastore/image?image={quote(name, safe='')}"
        files = {"file": ("x.png", png, "image/png")}
        untouched.append(upload_refused(label_server, "PUT", path, files))
    # The uploaded file's own name leads nowhere either: it counts without its folders.
    files = {"file": ("../../outside/strange.png", png, "image/png")}
    untouched.append(upload(label_server, "PUT", "/datastore/image?image=strange", files))
    assert (label_server.studies / "strange.png").is_file()
    for wrong in ("slides.csv", "ledger.sqlite", "x.py", "noending"):
        files = {"file": (wrong, png, "image/png")}
        untouched.append(upload_refused(label_server, "PUT", "/datastore/image?image=x", files))


def test_a_slide_is_not_replaced_by_an_upload(label_server):
    before = (label_server.studies / "A-02.tif").read_bytes()
    for suffix in ("tif", "png"):
        files = {"file": (f"A-02.{suffix}", grey_png(16, 16), "image/png")}
        _, text = upload_refused(label_server, "PUT", "/datastore/image?image=A-02", files)
        assert "choose another name" in text
    assert (label_server.studies / "A-02.tif").read_bytes() == before


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_datastore_image_get_and_head(label_server, canary, untouched, method):
    for name in ways_out(canary):
        path = f"/datastore/image?image={quote(name, safe='')}"
        untouched.append(refused(label_server, method, path))
    for name in ("slides.csv", "slides", "datastore_v2", "active_learning/tissue/ledger.sqlite"):
        untouched.append(refused(label_server, method, f"/datastore/image?image={quote(name, safe='')}"))


def test_datastore_image_info(label_server, canary, untouched):
    for name in ways_out(canary):
        path = f"/datastore/image/info?image={quote(name, safe='')}"
        untouched.append(refused(label_server, "GET", path))
        body, content_type = multipart_data("boundary", {}, {"info": "{}"})
        untouched.append(refused(label_server, "PUT", path, body, content_type))


def test_stored_information_cannot_change_what_a_next_sample_says(label_server):
    wrong = {"path": "/etc/passwd", "bbox": [0, 0, 1, 1], "id": "A-02", "score": 9}
    body, content_type = multipart_data("boundary", {}, {"info": json.dumps(wrong)})
    assert send(label_server, "PUT", "/datastore/image/info?image=B-01", body, content_type)[0] == 200
    answer = label_server.ask("POST", "/activelearning/tissue_random", {"image": "B-01", "client_id": "mallory"})
    assert answer["id"] == "B-01"
    assert answer["path"] == str(label_server.studies / "B-01.tif")
    assert answer["bbox"][2] > 200


def test_datastore_image_delete(label_server, canary, untouched):
    for name in [*ways_out(canary), "slides.csv", "datastore_v2.json", "active_learning"]:
        untouched.append(refused(label_server, "DELETE", f"/datastore/image?id={quote(name, safe='')}"))
    assert (label_server.studies / "slides.csv").is_file()
    assert (label_server.studies / "active_learning").is_dir()


def test_datastore_label_put(label_server, canary, untouched):
    files = {"label": ("x.xml", XML, "application/xml")}
    for name in ways_out(canary, "new.xml"):
        path = f"/datastore/label?image={quote(name, safe='')}"
        untouched.append(upload_refused(label_server, "PUT", path, files))
    for tag in TAGS_OF_NOBODY:
        path = f"/datastore/label?image=A-01&tag={quote(tag, safe='')}"
        untouched.append(upload_refused(label_server, "PUT", path, files))
    files = {"label": ("x/../../../outside/new.xml", XML, "application/xml")}
    untouched.append(upload(label_server, "PUT", "/datastore/label?image=A-02", files))


@pytest.mark.parametrize(
    ("method", "key"), [("GET", "label"), ("HEAD", "image"), ("DELETE", "id")], ids=["get", "head", "delete"]
)
def test_datastore_label_get_head_and_delete(label_server, canary, untouched, method, key):
    for name in ways_out(canary, "canary.xml"):
        path = f"/datastore/label?{key}={quote(name, safe='')}&tag=final"
        untouched.append(refused(label_server, method, path))
    for tag in TAGS_OF_NOBODY:
        path = f"/datastore/label?{key}=A-01&tag={quote(tag, safe='')}"
        untouched.append(refused(label_server, method, path))


def test_datastore_label_info(label_server, canary, untouched):
    for name in ways_out(canary, "canary.xml"):
        path = f"/datastore/label/info?label={quote(name, safe='')}&tag=final"
        status, text = send(label_server, "GET", path)
        untouched.append((status, text))
        assert status in (400, 404, 422) or json.loads(text) == {}
        body, content_type = multipart_data("boundary", {}, {"info": "{}"})
        untouched.append(refused(label_server, "PUT", path, body, content_type))


def test_a_link_out_of_the_studies_is_no_label(label_server, canary, untouched):
    link = label_server.studies / "labels" / "final" / "B-02.xml"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(canary / "canary.xml")
    try:
        untouched.append(refused(label_server, "GET", "/datastore/label?label=B-02&tag=final"))
    finally:
        link.unlink()


def test_model_get_put_and_delete(label_server, canary, untouched):
    """The checkpoint that the lab gave lies outside: it is neither replaced nor renamed."""
    given = label_server.studies.parent / "random.pt"
    before = given.read_bytes()
    for name in ("nothing", "..%2Foutside%2Fcanary.pt", "%2Fetc%2Fpasswd"):
        untouched.append(refused(label_server, "GET", f"/model/{name}"))
        untouched.append(refused(label_server, "GET", f"/model/info/{name}"))
        untouched.append(refused(label_server, "DELETE", f"/model/{name}"))
        files = {"file": ("x.pt", b"0", "application/octet-stream")}
        untouched.append(upload_refused(label_server, "PUT", f"/model/{name}", files))
    files = {"file": ("../../outside/model.pt", b"not a model", "application/octet-stream")}
    for answer in (
        refused(label_server, "DELETE", "/model/tissue", allowed=(422,)),
        upload_refused(label_server, "PUT", "/model/tissue", files, allowed=(422,)),
    ):
        assert "models are published by trainings only" in answer[1]
    assert given.read_bytes() == before
    assert not (label_server.studies / "active_learning" / "tissue" / "model.pt").exists()


def test_sessions_unpack_nothing_and_stay_in_their_folder(label_server, canary, untouched):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("../../../../outside/escaped.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"bad"))
    files = {"files": ("a.tar", archive.getvalue(), "application/x-tar")}
    untouched.append(upload_refused(label_server, "PUT", "/session/?uncompress=true", files, allowed=(422,)))
    for name in ("..%2F..%2Foutside", "%2Fetc", ".."):
        untouched.append(refused(label_server, "GET", f"/session/{name}"))
        untouched.append(refused(label_server, "DELETE", f"/session/{name}"))
    assert not list(canary.parent.rglob("escaped.txt"))


def test_scoring(label_server, canary, untouched):
    for name in ("nothing", "..%2Fx"):
        untouched.append(refused(label_server, "POST", f"/scoring/{name}?run_sync=true", {}))
    answer = send(label_server, "POST", "/scoring/tissue_regions?run_sync=true", {"output": str(canary / "new.json")})
    untouched.append(answer)
    assert answer[0] < 500


def test_info_and_what_is_listed_name_no_file_outside(label_server, canary):
    for path in ("/info/", "/datastore/?output=all", "/datastore/?output=train"):
        status, text = send(label_server, "GET", path)
        assert status == 200
        assert "canary" not in text
        assert SECRET not in text


# -- wrong requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/infer/wsi/nothing?image=A-01", "/train/nothing", "/activelearning/nothing"])
def test_an_unknown_name_is_answered_with_those_that_there_are(label_server, path):
    status, text = refused(label_server, "POST", path, {})
    assert status == 404
    assert "'nothing'" in json.loads(text)["detail"]
    assert "tissue" in json.loads(text)["detail"]


def test_an_unknown_slide_is_answered_with_some_that_there_are(label_server):
    status, text = refused(label_server, "POST", "/infer/wsi/tissue?image=C-77", {})
    assert status == 404
    assert "'C-77'" in text
    assert "A-01" in text


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(8))
    + ']><ASAP_Annotations><Annotations><Annotation Name="&i;"/></Annotations></ASAP_Annotations>'
)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.xml", b"<ASAP_Annotations><Annotations>", "XML"),
        ("x.xml", b"", "XML"),
        ("x.xml", BOMB.encode(), "entit|DOCTYPE|DTD"),
        (
            "x.xml",
            b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><ASAP_Annotations><Annotations>'
            b'<Annotation Name="&f;"/></Annotations></ASAP_Annotations>',
            "entit|DOCTYPE|DTD",
        ),
        ("x.geojson", b'{"type": "FeatureCollection", "features": [', "JSON"),
        ("x.xml", asap_xml([region_shape((90000, 90000, 256, 256))], (0, 0, 0, 0)), "slide"),
        ("x.exe", b"MZ", "label file"),
    ],
    ids=["cut short", "empty", "billion laughs", "external entity", "json cut short", "beyond the slide", "no label"],
)
def test_a_label_that_cannot_be_used_is_refused_and_the_last_one_stays(label_server, name, content, message):
    good = {"label": ("x.xml", XML, "application/xml")}
    assert upload(label_server, "PUT", "/datastore/label?image=A-02", good)[0] == 200
    files = {"label": (name, content, "application/xml")}
    status, text = upload_refused(label_server, "PUT", "/datastore/label?image=A-02", files)
    assert status == 422
    assert any(part in json.loads(text)["detail"] for part in message.split("|")), text
    assert (label_server.studies / "labels" / "final" / "A-02.xml").read_bytes() == XML


@pytest.mark.parametrize(
    "body",
    [
        {"location": ["a", 0], "size": [10, 10]},
        {"location": [90000, 90000], "size": [10, 10]},
        {"location": [0, 0], "size": [-5, 10]},
        {"location": [0, 0], "size": [10]},
        {"level": -1},
        {"min_poly_area": -3},
        {"tile_size": [0, 0]},
        {"params": {"wsi_tiles": 3}},
        {"params": {"undefined_below": 7}},
    ],
    ids=lambda body: json.dumps(body),
)
def test_a_wrong_region_is_refused_with_a_reason(label_server, body):
    status, _ = refused(label_server, "POST", "/infer/wsi/tissue?image=A-01&output=asap", body)
    assert status == 422


@pytest.mark.parametrize("path", ["/activelearning/tissue_random", "/train/tissue", "/infer/wsi/tissue?image=A-01"])
@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff\xfe"], ids=["cut short", "a list", "no text"])
def test_a_body_that_is_no_json_object_is_refused(label_server, path, text):
    assert refused(label_server, "POST", path, text)[0] in (400, 422)


def test_form_fields_that_are_no_json_are_refused(label_server):
    files = {"label": ("x.xml", XML, "application/xml")}
    upload_refused(label_server, "PUT", "/datastore/label?image=A-02", files, {"params": "{"})
    upload_refused(label_server, "POST", "/infer/wsi_v2/tissue?image=A-01", {}, {"wsi": "{"})
    upload_refused(label_server, "POST", "/infer/tissue?image=A-01", {}, {"params": "{"})


def test_two_trainings_at_once_are_refused(label_server):
    label_server.ask("POST", "/train/nuclei", {"max_epochs": 1})
    deadline = time.monotonic() + 60
    while label_server.get("/train/")["status"] == "SUBMITTED":  # a queue of its own, for milliseconds
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        status, text = send(label_server, "POST", "/train/nuclei", {"max_epochs": 1})
        assert status in (409, 429), text
        assert "already" in json.loads(text)["detail"].lower()
    finally:
        label_server.ask("DELETE", "/train/")
