# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json

import pytest

pytest.importorskip("monailabel")

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException

from tral_monai.errors import (
    BusyError,
    ConfigError,
    OutputError,
    RoundSpentError,
    SlideReadError,
    UnknownItemError,
)
from tral_monai.label_app.server import bind_to_loopback, install

ERRORS = {
    "spent": (RoundSpentError("round 2 is spent; train"), 409),
    "busy": (BusyError("a training is going on"), 409),
    "unknown": (UnknownItemError("there is no slide 'x'"), 404),
    "image": (ImageNotFoundException("Image x not found"), 404),
    "config": (ConfigError("size must be two numbers"), 422),
    "slide": (SlideReadError("a.tif: cannot be decoded"), 422),
    "output": (OutputError("cannot write a.xml: No space left on device"), 507),
    "full": (OSError(errno.ENOSPC, "No space left on device", "a.png"), 507),
    "monailabel": (MONAILabelException(MONAILabelError.INVALID_INPUT, "Model is not provided"), 422),
    "json": (json.JSONDecodeError("Expecting value", "{x", 1), 422),
    "other": (KeyError("surprise"), 500),
}


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()

    @app.get("/{name}")
    async def fail(name: str) -> None:
        raise ERRORS[name][0]

    install(app)
    install(app)  # a second time changes nothing
    assert len(app.user_middleware) == 2
    return TestClient(app, "http://127.0.0.1", raise_server_exceptions=False)


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_a_status_and_a_sentence(client: TestClient, name: str) -> None:
    answer = client.get(f"/{name}")
    assert answer.status_code == ERRORS[name][1]
    detail = answer.json()["detail"]
    words = {
        "full": "the disk of the server is full (a.png)",
        "monailabel": "Model is not provided",
        "json": "not valid JSON",
        "other": "KeyError",
        "image": "Image x not found",
    }
    assert words.get(name, str(ERRORS[name][0])) in detail


def test_a_web_app_that_has_started_can_be_changed() -> None:
    app = FastAPI()

    @app.get("/fail")
    async def fail() -> None:
        raise UnknownItemError("there is no slide 'y'")

    with TestClient(app, "http://localhost:8000", raise_server_exceptions=False) as before:
        assert before.get("/fail").status_code == 500
        install(app)
        assert before.get("/fail").json() == {"detail": "there is no slide 'y'"}


@pytest.mark.parametrize(
    ("arguments", "host", "loopback"),
    [
        (["start_server", "--app", "a", "--studies", "s"], "127.0.0.1", True),
        (["start_server", "--app", "a", "--host", "0.0.0.0"], "0.0.0.0", False),
        (["start_server", "-i", "0.0.0.0"], "0.0.0.0", False),
        (["start_server", "--host=0.0.0.0"], "0.0.0.0", False),
        (["start_server", "--host", "localhost"], "0.0.0.0", True),  # uvicorn's own business then
    ],
)
def test_it_listens_on_this_machine_unless_a_host_is_given(arguments: list[str], host: str, loopback: bool) -> None:
    config = uvicorn.Config("x:y", host="0.0.0.0")
    assert bind_to_loopback(arguments) is loopback
    assert config.host == host
