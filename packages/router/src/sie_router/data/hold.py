"""Keeps a request that nobody can serve yet until somebody can, for as long as its client likes."""

from typing import Final

from msgspec.structs import replace

from sie_router.core.demand import SLACK_S, Arrival, ttl_s
from sie_router.core.events import Missed
from sie_router.core.fleet import Index
from sie_router.core.route import Decision, Forward, Provision
from sie_router.data.body import REPLAY_BYTES, Body
from sie_router.data.call import Call
from sie_router.data.connection import Reply
from sie_router.data.forward import LOADING, Forwarder, Plane, code_of
from sie_router.data.incoming import Incoming
from sie_router.data.preference import preferred_s
from sie_router.data.waiting import WaitingRoom

# How long a client of another service waits unasked. Left to themselves these give up after two tries, and a worker
# takes longer to come than two delays. All known ones allow a request more time than this, proxies in between 60 s.
COMPAT_WAIT_S: Final = 50


class Hold:
    """Asks the forwarder again whenever the room says that it is worth it. `max_wait_s` bounds every wish."""

    def __init__(
        self, plane: Plane, forwarder: Forwarder, room: WaitingRoom, *, max_wait_s: int, retry_after_s: int
    ) -> None:
        self._plane = plane
        self._forwarder = forwarder
        self._room = room
        self._max_wait_s = max_wait_s
        self._retry_after_s = retry_after_s

    async def wait(
        self, call: Call, incoming: Incoming, body: Body, result: Reply | Decision, seen: Index
    ) -> Reply | Decision:
        """A better result than this one, or this one where the client does not want to wait or cannot.

        `seen` is the index in whose light the result came about. Who is sent away is offered to wait the next time.

        Raises:
            Problem, ClientGone: as for any other try.
        """
        if not _is_early(result):
            return result
        wish_s = self._wish_s(call, incoming)
        if wish_s:
            result = await self._kept(call, incoming, body, result, seen, wish_s)
        if _is_early(result):
            call.offered_wait_s = self._offer_s(incoming)
        return result

    def _wish_s(self, call: Call, incoming: Incoming) -> int:
        asked_s = incoming.wait_s
        if asked_s is None:
            asked_s = preferred_s(call.scope["headers"], COMPAT_WAIT_S if call.is_named else 0)
        return min(asked_s, self._max_wait_s)

    def _offer_s(self, incoming: Incoming) -> int:
        size_bytes = incoming.content_length or 0  # a chunked body may turn out to be too long
        return self._max_wait_s if size_bytes <= REPLAY_BYTES and self._room.has_room(size_bytes) else 0

    async def _kept(
        self, call: Call, incoming: Incoming, body: Body, result: Reply | Decision, seen: Index, wish_s: int
    ) -> Reply | Decision:
        await body.fill(self._forwarder.left_s(call, incoming))
        if not body.is_whole:
            return result
        call.watch.start()
        with self._room.place(body.held_bytes) as has_place:
            return await self._served(call, incoming, body, result, seen, wish_s) if has_place else result

    async def _served(
        self, call: Call, incoming: Incoming, body: Body, result: Reply | Decision, seen: Index, wish_s: int
    ) -> Reply | Decision:
        arrival, call.applied_wait_s = call.arrival, wish_s
        began = self._plane.clock()
        until = min(began + wish_s, self._forwarder.deadline(call, incoming))
        while _is_early(result):
            call.release()
            self._want(result, until - self._plane.clock(), arrival)
            ask = replace(incoming.ask, loaded_only=isinstance(result, Reply))
            is_my_turn = await self._room.turn(ask, seen, until)
            call.held_s = self._plane.clock() - began
            if not is_my_turn:
                self._room.ended["expired"] += 1
                return result
            result, seen = await self._again(call, incoming, body)
        self._room.ended["served"] += 1
        return result

    async def _again(self, call: Call, incoming: Incoming, body: Body) -> tuple[Reply | Decision, Index]:
        seen = self._plane.snapshot().index
        decision = self._forwarder.decide(incoming.ask)
        if not isinstance(decision, Forward):
            return decision, seen
        call.model = decision.model_id
        return await self._forwarder.forward(call, incoming, body, decision), seen

    def _want(self, result: Reply | Decision, left_s: float, arrival: Arrival) -> None:
        if isinstance(result, Provision) and result.is_configured:
            lasts_s = max(ttl_s(self._retry_after_s), left_s + SLACK_S)
            self._plane.publish(Missed(result.group, result.pool, lasts_s, arrival))


def _is_early(result: Reply | Decision) -> bool:
    return code_of(result) in LOADING if isinstance(result, Reply) else isinstance(result, Provision)
