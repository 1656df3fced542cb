from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.ui.conftest import TOKEN
from tracelet.ui.server import make_app


def test_nobody_gets_anything_without_the_token(stranger):
    for path in ("/", "/api/runs", "/file?run=everything&path=run.json", "/static/style.css", "/plotly.js", "/nothing"):
        answer = stranger.get(path)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers


def test_a_wrong_token_is_refused(stranger):
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "ä"):
        assert stranger.get("/", params={"token": token}).status_code == 401
        stranger.cookies.set("tracelet_6070", token.encode().hex())
        assert stranger.get("/").status_code == 401


def test_the_token_is_exchanged_for_a_cookie_and_leaves_the_address(stranger):
    answer = stranger.get(f"/charts?run=a&token={TOKEN}&x=step")
    assert answer.headers["location"] == "/charts?run=a&x=step"
    assert answer.headers["set-cookie"].lower() == f"tracelet_6070={TOKEN}; httponly; path=/; samesite=strict"
    assert stranger.get("/charts").status_code == 200


def test_the_exchange_leads_nowhere_else(stranger):
    assert stranger.get(f"http://127.0.0.1:6070//evil.example/?token={TOKEN}").headers["location"] == "/evil.example/"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_the_server_only_reads(client, method):
    answer = client.request(method, "/api/runs")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:6070", "127.0.0.1.evil.example", "192.168.0.5", "", "[", "a@b@c"]
)
def test_a_foreign_name_of_this_machine_is_refused(client, host):
    assert client.get("/api/runs", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:6070", "127.0.0.1:6070", "[::1]:6070", "LOCALHOST"])
def test_the_names_of_this_machine_are_taken(client, host):
    assert client.get("/api/runs", headers={"Host": host}).status_code in (200, 401)  # The cookie is for one of them.


def test_who_listens_to_all_takes_addresses_and_no_names(runs):
    client = TestClient(make_app(runs, TOKEN, "0.0.0.0"), base_url="http://127.0.0.1:6070")
    assert client.get("/", headers={"Host": "192.168.0.5:6070"}).status_code == 401
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1:6071", "null", "http://127.0.0.1"])
def test_another_site_may_not_ask(client, origin):
    assert client.get("/api/runs", headers={"Origin": origin}).status_code == 403
    assert (
        client.get("/api/runs", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}).status_code == 403
    )


def test_the_page_itself_may_ask(client):
    answer = client.get("/api/runs", headers={"Origin": "http://127.0.0.1:6070", "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "path", ["/", "/api/runs", "/api/run?run=nothing", "/static/style.css", "/plotly.js", "/nothing"]
)
def test_every_answer_forbids_what_is_not_ours(client, path):
    headers = client.get(path).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")


def test_the_nonce_is_another_one_each_time(client):
    first, second = (client.get("/").headers["content-security-policy"] for _ in range(2))
    assert first != second


def test_an_endless_address_is_refused(client):
    assert client.get("/api/runs", params={"search": "x" * 20_000}).status_code == 414
