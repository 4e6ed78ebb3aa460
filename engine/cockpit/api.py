"""The HTTP interface under /api."""

from __future__ import annotations

from aiohttp import web

from engine.cockpit.api_order import Ordering
from engine.cockpit.api_read import Reading
from engine.cockpit.api_session import Sessions
from engine.cockpit.api_stops import Stops
from engine.cockpit.parts import Parts


def routes(parts: Parts) -> list[web.RouteDef]:
    """Every route of the interface; ``engine.cockpit.openapi`` describes each."""
    groups = (Reading(parts), Sessions(parts), Stops(parts), Ordering(parts))
    return [route for group in groups for route in group.routes()]
