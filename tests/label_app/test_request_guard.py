# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from tral_monai.label_app.request_guard import RequestGuard


def client(*, loopback: bool = True, origins: tuple[str, ...] = ()) -> TestClient:
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST", "OPTIONS"])
    async def answer(path: str) -> dict[str, str]:
        return {"path": path}

    app.add_middleware(RequestGuard, loopback=loopback, origins=origins)
    return TestClient(app, "http://127.0.0.1:8000")


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "localhost:9000", "[::1]:8000", "LOCALHOST"])
def test_a_server_of_this_machine_is_called_by_its_names(host: str) -> None:
    assert client().get("/info/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "[::1", "10.0.0.7"])
def test_a_name_that_only_leads_here_is_refused(host: str) -> None:
    answer = client().get("/info/", headers={"Host": host})
    assert answer.status_code == 403
    assert "listens on its own machine only" in answer.json()["detail"]


def test_a_server_of_the_network_is_called_as_others_see_it() -> None:
    assert client(loopback=False).get("/info/", headers={"Host": "labserver.lab:8000"}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://evil.example:8000"]
)
def test_web_pages_from_elsewhere_are_refused(origin: str, method: str) -> None:
    for loopback in (True, False):
        answer = client(loopback=loopback).request(method, "/datastore/image", headers={"Origin": origin})
        assert answer.status_code == 403
        assert f"web pages of '{origin}' may not use this server" in answer.json()["detail"]


def test_the_servers_own_page_and_named_origins_may_ask() -> None:
    assert client().get("/", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    named = client(origins=("http://cvat.lab/",))
    assert named.get("/", headers={"Origin": "http://cvat.lab"}).status_code == 200
    assert named.get("/", headers={"Origin": "http://other.lab"}).status_code == 403


@pytest.mark.parametrize("path", ["/reload", "/proxy/dicom/series", "/proxy"])
def test_parts_that_do_not_belong_here_are_closed(path: str) -> None:
    assert client().post(path).status_code == 403
    assert client().get("/proxyless").status_code == 200
