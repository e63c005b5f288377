"""Parks a request that nobody can serve yet until somebody can, for as long as its client asks for (`Prefer: wait`)."""

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
from sie_router.data.parked import ParkedRequests
from sie_router.data.preference import preferred_s

# How long a client of another service waits unasked. Left to themselves these give up after two tries, and a worker
# takes longer to come than two delays. All known ones allow a request more time than this, proxies in between 60 s.
COMPAT_WAIT_S: Final = 50


class Parking:
    """Asks the forwarder again whenever the queue says that it is worth it. `max_wait_s` bounds every wait."""

    def __init__(
        self, plane: Plane, forwarder: Forwarder, parked: ParkedRequests, *, max_wait_s: int, retry_after_s: int
    ) -> None:
        self._plane = plane
        self._forwarder = forwarder
        self._parked = parked
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
        requested_s = self._requested_s(call, incoming)
        if requested_s:
            result = await self._park(call, incoming, body, result, seen, requested_s)
        if _is_early(result):
            call.offered_wait_s = self._offered_s(incoming)
        return result

    def _requested_s(self, call: Call, incoming: Incoming) -> int:
        asked_s = incoming.wait_s
        if asked_s is None:
            asked_s = preferred_s(call.scope["headers"], COMPAT_WAIT_S if call.is_named else 0)
        return min(asked_s, self._max_wait_s)

    def _offered_s(self, incoming: Incoming) -> int:
        size_bytes = incoming.content_length or 0  # a chunked body may turn out to be too long
        return self._max_wait_s if size_bytes <= REPLAY_BYTES and self._parked.has_room(size_bytes) else 0

    async def _park(
        self, call: Call, incoming: Incoming, body: Body, result: Reply | Decision, seen: Index, requested_s: int
    ) -> Reply | Decision:
        await body.fill(self._forwarder.left_s(call, incoming))
        if not body.is_whole:
            return result
        call.watch.start()
        with self._parked.slot(body.held_bytes) as has_slot:
            if has_slot:
                result = await self._retry_until_served(call, incoming, body, result, seen, requested_s)
        return result

    async def _retry_until_served(
        self, call: Call, incoming: Incoming, body: Body, result: Reply | Decision, seen: Index, requested_s: int
    ) -> Reply | Decision:
        arrival, call.applied_wait_s = call.arrival, requested_s
        began = self._plane.clock()
        until = min(began + requested_s, self._forwarder.deadline(call, incoming))
        while _is_early(result):
            call.release()
            self._publish_demand(result, until - self._plane.clock(), arrival)
            ask = replace(incoming.ask, loaded_only=isinstance(result, Reply))
            is_my_turn = await self._parked.wait(ask, seen, until)
            call.parked_s = self._plane.clock() - began
            if not is_my_turn:
                self._parked.ended["expired"] += 1
                return result
            result, seen = await self._retry(call, incoming, body)
        self._parked.ended["served"] += 1
        return result

    async def _retry(self, call: Call, incoming: Incoming, body: Body) -> tuple[Reply | Decision, Index]:
        seen = self._plane.snapshot().index
        decision = self._forwarder.decide(incoming.ask)
        if not isinstance(decision, Forward):
            return decision, seen
        call.model = decision.model_id
        return await self._forwarder.forward(call, incoming, body, decision), seen

    def _publish_demand(self, result: Reply | Decision, left_s: float, arrival: Arrival) -> None:
        if isinstance(result, Provision) and result.is_configured:
            lasts_s = max(ttl_s(self._retry_after_s), left_s + SLACK_S)
            self._plane.publish(Missed(result.group, result.pool, lasts_s, arrival))


def _is_early(result: Reply | Decision) -> bool:
    return code_of(result) in LOADING if isinstance(result, Reply) else isinstance(result, Provision)
