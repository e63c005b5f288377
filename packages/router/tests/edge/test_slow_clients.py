import asyncio
import socket
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from router_fakes import eventually
from router_time import VirtualLoop
from sie_router.edge.slow_clients import SlowClient, unsent_bytes

PAUSE_S = 30.0


class Pipe:
    """What a client has yet to take."""

    def __init__(self, unsent_bytes: int) -> None:
        self.unsent_bytes, self.closes, self.is_aborted = unsent_bytes, False, False

    def get_extra_info(self, _: str) -> "Pipe":
        return self

    def fileno(self) -> int:
        raise OSError("no file")

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def is_closing(self) -> bool:
        return self.closes

    def abort(self) -> None:
        self.is_aborted = True


def watched(unsent_bytes: int) -> tuple[VirtualLoop, Pipe, SlowClient]:
    loop, pipe = VirtualLoop(), Pipe(unsent_bytes)
    client = SlowClient(loop.as_loop(), cast("asyncio.Transport", pipe), PAUSE_S)
    client.begin()
    return loop, pipe, client


@given(st.lists(st.floats(0.1, PAUSE_S - 0.1), max_size=40))
def test_who_takes_something_in_time_keeps_its_connection_and_who_stops_loses_it(gaps_s: list[float]) -> None:
    loop, pipe, _ = watched(len(gaps_s) + 1)
    for gap_s in gaps_s:
        loop.pass_to(loop.now + gap_s)
        assert not pipe.is_aborted
        pipe.unsent_bytes -= 1
    loop.pass_to(loop.now + 2 * PAUSE_S)
    assert pipe.is_aborted
    assert not loop.timers


def test_who_caught_up_is_watched_no_more_unless_the_connection_is_to_close() -> None:
    for is_closing in (False, True):
        loop, pipe, client = watched(1)
        pipe.closes = is_closing
        client.end()
        loop.pass_to(3 * PAUSE_S)
        assert pipe.is_aborted is is_closing


def test_who_has_taken_everything_is_not_watched() -> None:
    loop, pipe, _ = watched(0)
    assert not loop.timers
    assert not pipe.is_aborted


async def test_what_a_slow_client_takes_counts_although_the_system_asks_for_no_more_yet() -> None:
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    writers: list[asyncio.StreamWriter] = []
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        await eventually(lambda: len(writers) == 1)
        transport = writers[0].transport
        transport.write(bytes(64 << 20))
        left = alike = 0

        def is_settled() -> bool:
            nonlocal left, alike
            before, left = left, unsent_bytes(transport)
            alike = alike + 1 if before == left else 0
            return alike == 20  # looks, each in another turn of the loop

        await eventually(is_settled)
        ours = transport.get_write_buffer_size()
        client.recv(1 << 20, socket.MSG_WAITALL)
        await eventually(lambda: unsent_bytes(transport) < left)
        assert transport.get_write_buffer_size() == ours
        transport.abort()
    server.close()
    await server.wait_closed()
