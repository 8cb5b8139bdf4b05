"""Large answers on their way: how much of them is held at once, and for how long.

A body that its client does not take stays in memory. So no more than a budget of such bodies is on its way at any time,
and whoever takes one too slowly is cut off.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping

from anyio import move_on_after
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.services.errors import BusyError

log = logging.getLogger("overread")
BUDGET_BYTES = 2**28  # eight of the largest radiographs
GRACE_S = 30.0
SLOWEST_BYTES_PER_S = 2**17
_CHUNK = 2**18  # what a connection buffers beside the body


class Outgoing:
    """The budget of a server. grace_s, slowest: every client has so long, and longer by its answer's size."""

    def __init__(
        self, budget_bytes: int = BUDGET_BYTES, grace_s: float = GRACE_S, slowest: float = SLOWEST_BYTES_PER_S
    ) -> None:
        self.budget_bytes = budget_bytes
        self.grace_s = grace_s
        self.slowest = slowest
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """Bytes on their way."""
        return self._held

    def take(self, size: int) -> None:
        """Raises BusyError `busy` where it is over the budget, unless it is alone."""
        with self._lock:
            if self._held and self._held + size > self.budget_bytes:
                raise BusyError("busy", "Too many large images are on their way to others; try again in a few seconds.")
            self._held += size

    def give_back(self, size: int) -> None:
        """What is sent, or never will be."""
        with self._lock:
            self._held -= size


class LargeResponse(Response):
    """An answer that counts against the budget until it is sent, or thrown away unsent."""

    def __init__(self, outgoing: Outgoing, body: bytes, media_type: str, headers: Mapping[str, str]) -> None:
        """Raises BusyError `busy`."""
        outgoing.take(len(body))
        self._done = weakref.finalize(self, outgoing.give_back, len(body))
        self._limit_s = outgoing.grace_s + len(body) / outgoing.slowest
        super().__init__(body, media_type=media_type, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """In pieces, each when the one before it has left: what is cut off is known to its client by its length."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        whole = memoryview(self.body)
        try:
            with move_on_after(self._limit_s) as limit:
                for start in range(0, len(whole), _CHUNK):
                    piece = bytes(whole[start : start + _CHUNK])
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            if limit.cancelled_caught:
                log.warning("A client was cut off that took a large answer too slowly")
        finally:
            self._done()
