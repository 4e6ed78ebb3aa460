"""The only import of the IB client library: ib_insync by default, ib_async in its place.

Of the library we use the protocol knowledge (encoding of requests, decoding of answers) and nothing that guesses: its
``IB`` facade, its ``Wrapper`` (which cancels live orders on mere errors), its DOM and its throttle stay out of the way.
``Client`` works with any object as its wrapper, which is what makes both libraries interchangeable here.

The environment variable ``L2DASH_IB_LIBRARY`` (``ib_insync`` or ``ib_async``) chooses; without it, what is installed.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

SUPPORTED = ("ib_insync", "ib_async")
MIN_VERSION, MAX_VERSION = 157, 176
"""Server versions we announce: 176 is the longest text layout that both libraries decode without loss."""


def _load() -> Any:
    chosen = os.environ.get("L2DASH_IB_LIBRARY", "")
    if chosen and chosen not in SUPPORTED:
        raise ImportError(f"L2DASH_IB_LIBRARY = {chosen!r}: allowed are {', '.join(SUPPORTED)}")
    for name in (chosen,) if chosen else SUPPORTED:
        try:
            return importlib.import_module(f"{name}.client")
        except ModuleNotFoundError as error:
            if error.name is not None and not error.name.startswith(name):
                raise
    raise ImportError(f"no IB client library: install one of {', '.join(SUPPORTED)}")


_client = _load()
LIBRARY: str = _client.__name__.split(".")[0]
Client: Any = _client.Client
Contract: Any = _client.Contract
Order: Any = importlib.import_module(f"{LIBRARY}.order").Order
ExecutionFilter: Any = importlib.import_module(f"{LIBRARY}.objects").ExecutionFilter
UNSET_DOUBLE: float = importlib.import_module(f"{LIBRARY}.util").UNSET_DOUBLE
EMPTY_PRICE: Any = Order().lmtPrice
"""What the library takes for "no price"."""
