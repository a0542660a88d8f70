# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from tral_monai.label_app.client_identity import RequestAtHand, client_name, peer, request_at_hand


@pytest.mark.parametrize(
    ("request_", "name"),
    [({}, None), ({"client_id": None}, None), ({"client_id": "anna"}, "anna"), ({"client_id": 7}, "7")],
)
def test_a_clients_own_name(request_: dict[str, object], name: str | None) -> None:
    assert client_name(request_) == name


def test_a_long_name_is_cut() -> None:
    assert client_name({"client_id": "x" * 1000}) == "x" * 100


def test_the_peer_is_that_of_the_request_at_hand() -> None:
    assert peer() == "local"
    token = request_at_hand.set(RequestAtHand("10.0.0.7", "GET", "/info/"))
    assert peer() == "10.0.0.7"
    request_at_hand.reset(token)
    assert peer() == "local"
