"""Large answers: bounded in memory, and cut off in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from app.outgoing import LargeResponse, Outgoing
from app.services.errors import BusyError

BODY = bytes(24 * 2**20)  # more than a connection's buffers take


@contextmanager
def serving(outgoing: Outgoing) -> Iterator[int]:
    """A server of one large answer; its port."""

    async def large(_: Request) -> LargeResponse:
        return LargeResponse(outgoing, BODY, "application/octet-stream", {})

    server = uvicorn.Server(uvicorn.Config(Starlette(routes=[Route("/", large)]), log_level="critical"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(10)


def ask(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), 20)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def taken(client: socket.socket) -> int:
    count = 0
    while piece := client.recv(2**20):
        count += len(piece)
    return count


def until_free(outgoing: Outgoing) -> None:
    end = time.monotonic() + 20
    while outgoing.held:
        assert time.monotonic() < end, "it is still held"
        time.sleep(0.01)


def test_who_does_not_take_an_answer_is_cut_off_and_its_memory_free() -> None:
    outgoing = Outgoing(grace_s=0.3, slowest=1e12)
    with serving(outgoing) as port, ask(port) as client:
        assert outgoing.held == len(BODY)
        until_free(outgoing)
        assert taken(client) < len(BODY)


def test_who_takes_it_gets_it_whole_and_who_hangs_up_holds_nothing() -> None:
    outgoing = Outgoing()
    with serving(outgoing) as port:
        with ask(port) as client:
            assert taken(client) > len(BODY)  # with the rest of the headers
        ask(port).close()
        until_free(outgoing)


def test_no_more_than_the_budget_is_on_its_way() -> None:
    outgoing = Outgoing(budget_bytes=100)
    first = LargeResponse(outgoing, bytes(150), "x/y", {})  # alone, it may be larger
    with pytest.raises(BusyError):
        LargeResponse(outgoing, bytes(1), "x/y", {})
    del first  # thrown away unsent
    assert outgoing.held == 0
    held = [LargeResponse(outgoing, bytes(50), "x/y", {}) for _ in range(2)]
    with pytest.raises(BusyError):
        LargeResponse(outgoing, bytes(1), "x/y", {})
    assert outgoing.held == 50 * len(held)
