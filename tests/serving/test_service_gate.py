"""Who may use the service: by a token, by its own name, and from which pages."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from little import GOLDEN, picture
from served import Here, here

from rehead.serving.gate import is_loopback, own_names

TOKEN = "correct-horse-battery-staple"
BUNDLE = GOLDEN / "bundle-3"
OTHER = "https://elsewhere.example"


@pytest.fixture(scope="module")
def locked() -> Iterator[Here]:
    with here({"x": BUNDLE}, token=TOKEN, hosts=own_names("127.0.0.1"), cors=[OTHER]) as running:
        yield running


@pytest.fixture(scope="module")
def loopback() -> Iterator[Here]:
    with here({"x": BUNDLE}, hosts=own_names("127.0.0.1")) as running:
        yield running


def basic(password: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("path", ["/v1/model", "/metrics", "/docs", "/docs/start.js", "/openapi.json", "/", "/nothing"])
def test_all_but_health_asks_for_the_token(locked: Here, path: str) -> None:
    refused = locked.get(path)
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith(("Bearer", "Basic realm="))
    assert refused.json["request_id"]
    assert locked.get(path, Authorization=f"Bearer {TOKEN}").status in (200, 404)
    assert TOKEN not in str(locked.said)


def test_health_does_not(locked: Here) -> None:
    assert locked.get("/healthz").status == locked.get("/readyz").status == 200


@pytest.mark.parametrize(
    "said", ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Token {TOKEN}", TOKEN, "Basic ***", "Basic /w==",
             "Basic \xe9", "Bearer \xe9", basic(""), basic("x", TOKEN), f"Bearer {TOKEN.upper()}"],
)  # fmt: skip
def test_what_is_not_quite_the_token_is_none(locked: Here, said: str) -> None:
    assert locked.predict(picture(), Authorization=said).status == 401
    assert locked.predict(picture(), Authorization=f"bearer {TOKEN}").status == 200


def test_browsers_may_ask_for_it_as_a_password(locked: Here) -> None:
    assert "Basic" in locked.get("/").headers["www-authenticate"]
    assert "Basic" not in locked.predict(picture()).headers["www-authenticate"]
    assert locked.predict(picture(), Authorization=basic(TOKEN)).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "", "[::2]"]
)
def test_a_page_that_renames_itself_to_this_machine_is_refused(loopback: Here, host: str) -> None:
    for path in ("/v1/model", "/healthz"):
        assert loopback.get(path, Host=host).status == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1:8000", "[::1]:8000", "[::1]", "localhost."])
def test_its_own_names_are_answered(loopback: Here, host: str) -> None:
    assert loopback.get("/v1/model", Host=host).status == 200


def test_other_sites_pages_may_not_ask(loopback: Here) -> None:
    ours = f"http://127.0.0.1:{loopback.port}"
    for headers in ({"Origin": OTHER}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
                    {"Origin": "http://["}, {"Origin": "http://[::1"}, {"Sec_Fetch_Site": "cross-site"},
                    {"Sec_Fetch_Site": "same-site"}):  # fmt: skip
        answer = loopback.predict(picture(), **headers)
        assert answer.status == 403, headers
        assert "--cors" in answer.json["error"]["fix"]
    for headers in ({"Origin": ours}, {"Sec_Fetch_Site": "same-origin"}, {"Sec_Fetch_Site": "none"}):
        assert loopback.predict(picture(), **headers).status == 200, headers


def test_a_named_origin_may(locked: Here) -> None:
    asked = locked.ask("OPTIONS", "/v1/predict", Origin=OTHER, Access_Control_Request_Method="POST",
                       Access_Control_Request_Headers="authorization,content-type")  # fmt: skip
    assert asked.status == 200
    assert asked.headers["access-control-allow-origin"] == OTHER
    done = locked.predict(picture(), Origin=OTHER, Authorization=f"Bearer {TOKEN}")
    assert (done.status, done.headers["access-control-allow-origin"]) == (200, OTHER)
    other = locked.predict(picture(), Origin="https://third.example", Authorization=f"Bearer {TOKEN}")
    assert other.status == 403
    assert "access-control-allow-origin" not in other.headers


def test_which_addresses_are_this_machine_alone() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))
    assert own_names("0.0.0.0") is None
    assert "127.8.8.8" in (own_names("127.8.8.8") or ())
    assert "photos.example.org" in (own_names("127.0.0.1", ["https://photos.example.org:8443"]) or ())


def test_any_name_is_answered_where_others_can_reach_it() -> None:
    with here({"x": BUNDLE}) as running:
        assert running.get("/v1/model", Host="photos.example.org").status == 200


def test_no_model_is_loaded_from_a_name(tmp_path: Path) -> None:
    with here({"x": BUNDLE}) as running:
        answer = running.predict(picture(), f"?model={tmp_path}")
    assert answer.status == 404
