"""Errors of the HTTP interface: every refusal is one problem+json document that names the field and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web

PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field of a request body or query."""

    field: str
    reason: str

    def as_json(self) -> dict[str, str]:
        return {"field": self.field, "reason": self.reason}


class Problem(Exception):
    """A refused request. ``extra`` members are laid into the problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: tuple[FieldError, ...] = (),
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers or {}
        self.extra = extra

    def response(self) -> web.Response:
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        if self.errors:
            body["errors"] = [e.as_json() for e in self.errors]
            body.setdefault("field", self.errors[0].field)
        return web.Response(body=orjson.dumps(body), status=self.status, content_type=PROBLEM, headers=self.headers)


def invalid(*errors: FieldError) -> Problem:
    """422 with every field that is wrong."""
    detail = "; ".join(f"{e.field}: {e.reason}" for e in errors)
    return Problem(422, detail, errors=errors)
