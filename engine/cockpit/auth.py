"""Who is calling, and what they may do: bearer tokens for programs, cookie sessions for browsers.

Secrets are compared as SHA-256 digests by ``hmac.compare_digest``; every failure looks the same. Sessions are kept as
digests in a 0600 file, so that a cockpit that is restarted at night does not lock its trader out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from engine.cockpit.login import consume_login

COOKIE = "l2dash_session"
SESSION_IDLE_NS = 24 * 3600 * 1_000_000_000
TOKEN_BYTES = 32
SCOPES = {
    "read": frozenset({"read"}),
    "trade": frozenset({"read", "trade"}),
    "admin": frozenset({"read", "trade", "admin"}),
}
_MOST_SESSIONS = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """``name`` is short and safe for the audit; ``browser`` callers must show mode and arming."""

    name: str
    scopes: frozenset[str]
    browser: bool


@dataclass(frozen=True, slots=True)
class Session:
    digest: str
    scope: str
    name: str
    seen_wall_ns: int


def ensure_token(state_dir: Path, configured: str | None) -> str:
    """The bearer token: the configured one, else the one in ``state_dir/token``, generated (0600) when missing.

    Raises ValueError if it is shorter than 32 characters: a short secret can be guessed.
    """
    path = state_dir / "token"
    if configured:
        if len(configured) < 32:
            raise ValueError(
                f"TRADING_TOKEN has {len(configured)} characters, at least 32 are needed: openssl rand -hex 32"
            )
        return configured
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        os.chmod(path, 0o600)
        token = path.read_text().strip()
        if len(token) < 32:
            raise ValueError(
                f"{path} holds {len(token)} characters, at least 32 are needed: delete it to get a new one"
            ) from None
        return token
    with os.fdopen(fd, "w") as file:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Authority:
    """Knows tokens and sessions. ``tokens`` maps a secret to its scope name."""

    def __init__(self, state_dir: Path, tokens: dict[str, str]) -> None:
        self._state_dir = state_dir
        self._tokens = [(_digest(t), scope) for t, scope in tokens.items()]
        self._path = state_dir / "sessions.json"
        self._sessions: dict[str, Session] = self._load()

    def _load(self) -> dict[str, Session]:
        try:
            found = orjson.loads(self._path.read_bytes())
            return {str(s["digest"]): Session(**s) for s in found}
        except (OSError, ValueError, TypeError, KeyError):
            return {}  # without the file everybody logs in again

    def _save(self) -> None:
        temporary = self._path.with_suffix(".new")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(orjson.dumps(list(self._sessions.values())))
        os.replace(temporary, self._path)

    def bearer(self, header: str) -> Caller | None:
        """Caller of an ``Authorization`` header. Compares with every token, so that time tells nothing."""
        scheme, _, given = header.partition(" ")
        digest = _digest(given.strip())
        scope = ""
        for known, its_scope in self._tokens:
            if hmac.compare_digest(known, digest):
                scope = its_scope
        if scheme.lower() != "bearer" or not scope:
            return None
        return Caller(f"bearer:{scope}", SCOPES[scope], browser=False)

    def login(self, key: str, now_wall: int) -> tuple[str, Caller] | None:
        """Trade a one-time key for a fresh session; returns its cookie value and caller, or None."""
        scope = consume_login(self._state_dir, key, now_wall)
        if scope is None or scope not in SCOPES:
            return None
        cookie = secrets.token_urlsafe(TOKEN_BYTES)
        digest = _digest(cookie).hex()
        self._sessions[digest] = Session(digest, scope, f"browser:{digest[:8]}", now_wall)
        self._drop_old(now_wall)
        self._save()
        return cookie, Caller(f"browser:{digest[:8]}", SCOPES[scope], browser=True)

    def session(self, cookie: str, now_wall: int) -> Caller | None:
        digest = _digest(cookie).hex()
        found = self._sessions.get(digest)
        if found is None or now_wall - found.seen_wall_ns > SESSION_IDLE_NS:
            return None
        if now_wall - found.seen_wall_ns > 60_000_000_000:
            self._sessions[digest] = replace(found, seen_wall_ns=now_wall)
            self._save()
        return Caller(found.name, SCOPES[found.scope], browser=True)

    def logout(self, cookie: str) -> None:
        if self._sessions.pop(_digest(cookie).hex(), None) is not None:
            self._save()

    def _drop_old(self, now_wall: int) -> None:
        for digest, s in list(self._sessions.items()):
            if now_wall - s.seen_wall_ns > SESSION_IDLE_NS:
                del self._sessions[digest]
        by_age = sorted(self._sessions.values(), key=lambda s: s.seen_wall_ns)
        for s in by_age[: max(0, len(by_age) - _MOST_SESSIONS)]:
            del self._sessions[s.digest]
