"""Who may come in: Host, Origin, bearer, cookie, scopes, limits."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cockpit import limits
from engine.cockpit.auth import Authority, ensure_token
from engine.cockpit.guard import allowed_hosts, host_name, origin_matches
from engine.cockpit.limits import Buckets
from engine.cockpit.login import LIFETIME_NS, consume_login, create_login

NOW = 1_700_000_000_000_000_000


# -- tokens and logins ------------------------------------------------------------------------------------------------


def test_a_missing_token_is_generated_once_into_a_private_file(tmp_path: Path) -> None:
    token = ensure_token(tmp_path, None)
    assert len(token) >= 32
    assert stat.S_IMODE(os.stat(tmp_path / "token").st_mode) == 0o600
    assert ensure_token(tmp_path, None) == token


def test_a_short_token_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 32"):
        ensure_token(tmp_path, "short")


def test_a_login_key_works_once(tmp_path: Path) -> None:
    key = create_login(tmp_path, NOW)
    assert consume_login(tmp_path, key, NOW) == "admin"
    assert consume_login(tmp_path, key, NOW) is None


def test_a_login_key_expires_and_its_file_holds_no_key(tmp_path: Path) -> None:
    key = create_login(tmp_path, NOW)
    path = tmp_path / "logins.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key not in path.read_text()
    assert consume_login(tmp_path, key, NOW + LIFETIME_NS + 1) is None


def test_two_pending_keys_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = create_login(tmp_path, NOW), create_login(tmp_path, NOW, "read")
    assert consume_login(tmp_path, second, NOW) == "read"
    assert consume_login(tmp_path, first, NOW) == "admin"


def test_a_session_survives_a_restart_and_ends_at_logout(tmp_path: Path) -> None:
    authority = Authority(tmp_path, {})
    found = authority.login(create_login(tmp_path, NOW), NOW)
    assert found is not None
    cookie, caller = found
    again = Authority(tmp_path, {})
    assert again.session(cookie, NOW) == caller
    again.logout(cookie)
    assert again.session(cookie, NOW) is None
    assert cookie not in (tmp_path / "sessions.json").read_text()


def test_a_session_idle_for_a_day_is_gone(tmp_path: Path) -> None:
    authority = Authority(tmp_path, {})
    found = authority.login(create_login(tmp_path, NOW), NOW)
    assert found is not None
    assert authority.session(found[0], NOW + 25 * 3600 * 10**9) is None


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer wrong", "Basic secret-secret", "secret-secret", "Bearer secret-secretx"]
)
def test_every_other_authorization_header_is_nobody(tmp_path: Path, header: str) -> None:
    authority = Authority(tmp_path, {"secret-secret": "trade"})
    assert authority.bearer(header) is None
    assert authority.bearer("Bearer secret-secret") is not None


# -- pure checks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:3000", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:3000", "::1"),
        ("LOCALHOST.", "localhost"),
        ("", ""),
        ("a b", "a b"),
        ("[::1", ""),
    ],
)
def test_host_names(header: str, name: str) -> None:
    assert host_name(header) == name


def test_only_named_hosts_are_ours_even_when_bound_to_every_address() -> None:
    hosts = allowed_hosts("0.0.0.0", ("desk.example",))
    assert hosts == {"localhost", "127.0.0.1", "::1", "desk.example"}


@pytest.mark.parametrize(
    ("origin", "same"),
    [
        ("http://localhost:3000", True),
        ("http://localhost:3001", False),
        ("https://localhost:3000", False),
        ("http://127.0.0.1:3000", False),
        ("null", False),
        ("http://localhost:3000.evil.example", False),
    ],
)
def test_an_origin_must_agree_in_scheme_host_and_port(origin: str, same: bool) -> None:
    assert origin_matches(origin, "http", "localhost:3000") is same


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2_000_000_000), min_size=1, max_size=60))
def test_a_bucket_never_gives_more_than_burst_plus_rate(gaps: list[int]) -> None:
    buckets, now, taken = Buckets(), 0, 0
    for gap in gaps:
        now += gap
        taken += buckets.take("me", "order", limits.ORDER, now) == 0.0
    assert taken <= limits.ORDER.burst + limits.ORDER.per_s * sum(gaps) / 1e9 + 1


def test_a_bucket_says_how_long_to_wait_and_then_gives() -> None:
    buckets = Buckets()
    for _ in range(5):
        assert buckets.take("me", "login", limits.LOGIN, 0) == 0.0
    wait_s = buckets.take("me", "login", limits.LOGIN, 0)
    assert wait_s == pytest.approx(12.0)
    assert buckets.take("other", "login", limits.LOGIN, 0) == 0.0
    assert buckets.take("me", "login", limits.LOGIN, int(wait_s * 1e9) + 1) == 0.0


# -- over the wire ----------------------------------------------------------------------------------------------------


async def test_a_call_without_credentials_is_401_and_names_the_header(rig) -> None:
    for method, path in (
        ("GET", "/api/state"),
        ("POST", "/api/exec/flatten-all"),
        ("GET", "/api/stream"),
        ("GET", "/api/openapi.json"),
    ):
        async with rig.http.request(method, rig.base + path) as r:
            body = await r.json(content_type=None)
            assert (r.status, r.content_type) == (401, "application/problem+json")
            assert "Authorization: Bearer" in body["detail"]
            assert r.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_wrong_bearer_is_not_rescued_by_a_good_cookie(rig) -> None:
    headers = await rig.browser()
    async with rig.http.get(rig.base + "/api/state", headers={**headers, "Authorization": "Bearer nonsense"}) as r:
        assert r.status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3000", "localhost.evil.example", "169.254.1.1"])
async def test_another_host_is_misdirected_on_both_ports(rig, host: str) -> None:
    for url in (rig.base + "/api/state", rig.base + "/cockpit", rig.health + "/health/live", rig.health + "/metrics"):
        async with rig.http.get(url, headers={**rig.bearer, "Host": host}) as r:
            assert r.status == 421, url


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("same-origin", "own", 202),
        (None, "own", 202),
        ("same-origin", None, 202),
        ("same-site", None, 403),
        ("same-site", "other-port", 403),
        ("cross-site", "https://evil.example", 403),
        ("none", None, 403),
        (None, "null", 403),
        (None, "other-port", 403),
        ("same-origin", "other-port", 403),
        (None, None, 403),
    ],
)
async def test_a_browser_may_act_only_from_our_own_origin(
    rig, site: str | None, origin: str | None, status: int
) -> None:
    headers = await rig.browser()
    for name in ("Origin", "Sec-Fetch-Site"):
        headers.pop(name)
    if site:
        headers["Sec-Fetch-Site"] = site
    if origin:
        headers["Origin"] = {"own": rig.base, "other-port": "http://127.0.0.1:1"}.get(origin, origin)
    got, _ = await rig.post("/api/exec/pause", {}, headers)
    assert got == status


async def test_a_page_of_another_site_can_not_even_read_or_open_streams(rig) -> None:
    headers = await rig.browser()
    for path in ("/api/state", "/api/stream"):
        async with rig.http.get(rig.base + path, headers={**headers, "Sec-Fetch-Site": "cross-site"}) as r:
            assert r.status == 403


async def test_a_browser_must_send_json_and_our_own_header(rig) -> None:
    headers = await rig.browser()
    async with rig.http.post(
        rig.base + "/api/exec/pause", data="{}", headers={**headers, "Content-Type": "text/plain"}
    ) as r:
        assert r.status == 415
    without = {k: v for k, v in headers.items() if k != "X-L2Dash"}
    got, body = await rig.post("/api/exec/pause", {}, without)
    assert got == 403
    assert "X-L2Dash" in body["detail"]


async def test_a_bearer_body_is_json_whatever_its_content_type_says(rig) -> None:
    body = '{"symbol":"AAPL","qty":1,"side":"BUY","type":"LMT","limit":150.00}'
    async with rig.http.post(
        rig.base + "/api/exec/order",
        data=body,
        headers={**rig.bearer, "Content-Type": "application/x-www-form-urlencoded"},
    ) as r:
        assert r.status == 202, await r.text()
        assert (await r.json())["order_id"].isdigit()


async def test_a_read_token_may_look_and_not_touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cockpit_rig import start_rig, stop_rig

    monkeypatch.setenv("L2DASH_READ_TOKEN", "r" * 40)
    rig = await start_rig(tmp_path, monkeypatch)
    try:
        headers = {"Authorization": "Bearer " + "r" * 40}
        assert (await rig.call("GET", "/api/state", headers=headers))[0] == 200
        for path in ("flatten-all", "order", "pause", "reset", "kill"):
            status, body = await rig.call("POST", f"/api/exec/{path}", {}, headers=headers)
            assert status == 403, path
            assert "scope" in body["detail"]
    finally:
        await stop_rig(rig)


async def test_logins_are_limited_and_orders_too_but_never_stops(rig) -> None:
    own = {"Origin": rig.base, "X-L2Dash": "1"}
    codes = [(await rig.post("/api/login", {"k": "wrong"}, own))[0] for _ in range(6)]
    assert codes == [401] * 5 + [429]
    orders = [(await rig.call("POST", "/api/exec/order", {"symbol": "?"}))[0] for _ in range(14)]
    assert orders[:10] == [422] * 10
    assert 429 in orders
    for path in ("pause", "flatten-all"):
        assert {(await rig.call("POST", f"/api/exec/{path}", {}))[0] for _ in range(40)} == {202}


async def test_pages_carry_the_policy_and_nothing_under_api_is_cached(rig) -> None:
    async with rig.http.get(rig.base + "/cockpit") as r:
        assert r.status == 200
        policy = r.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:")
        assert r.headers["X-Content-Type-Options"] == "nosniff"
        assert r.headers["Referrer-Policy"] == "no-referrer"
        assert r.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "aiohttp" not in r.headers.get("Server", "")
    async with rig.http.get(rig.base + "/api/state", headers=rig.bearer) as r:
        assert r.headers["Cache-Control"] == "no-store"


async def test_errors_are_problem_documents(rig) -> None:
    for method, path, status in (("GET", "/api/nowhere", 404), ("POST", "/api/state", 405), ("PUT", "/cockpit", 405)):
        async with rig.http.request(method, rig.base + path, headers=rig.bearer) as r:
            assert (r.status, r.content_type) == (status, "application/problem+json")
    async with rig.http.post(rig.base + "/api/exec/order", data=b"x" * 20_000, headers=rig.bearer) as r:
        assert r.status == 413


async def test_static_files_do_not_lead_out_of_their_folder(rig) -> None:
    import yarl

    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py"):
        async with rig.http.get(yarl.URL(rig.base + path, encoded=True)) as r:
            assert r.status in (403, 404), path
