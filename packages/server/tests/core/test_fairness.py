import heapq
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.core.fairness import Account, next_turn


@dataclass
class Shared:
    """A device of some lanes and parties that always want more from a time on; what it does is decided as in use."""

    lanes: int
    accounts: dict[int, Account] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    served: dict[int, float] = field(default_factory=dict)
    running: list[tuple[float, int, int, float, float]] = field(default_factory=list)
    level: float = 0.0
    begun: int = 0

    def ask(self, party: int) -> None:
        self.accounts[party] = self.accounts.get(party, Account()).joins(self.level)
        self.served.setdefault(party, 0.0)
        self.waiting.append(party)

    def start(self, now: float, lengths: dict[int, list[float]]) -> None:
        while self.waiting and len(self.running) < self.lanes:
            party = self.waiting.pop(next_turn([self.accounts[each] for each in self.waiting]))
            account, own = self.accounts[party], lengths[party]
            self.level, self.accounts[party] = account.spent, account.starts()
            seconds = own[self.begun % len(own)]
            self.begun += 1
            heapq.heappush(self.running, (now + seconds, self.begun, party, account.usual, seconds))
            self.ask(party)

    def end(self) -> tuple[float, int]:
        now, _, party, charged, seconds = heapq.heappop(self.running)
        self.accounts[party] = self.accounts[party].ends(charged, seconds)
        self.served[party] += seconds
        return now, party


LENGTHS = st.lists(st.integers(1, 40).map(lambda tenths: tenths / 10), min_size=1, max_size=5)


@given(st.lists(LENGTHS, min_size=2, max_size=5), st.integers(1, 4), st.integers(0, 60))
@settings(max_examples=300, deadline=None)
def test_parties_that_always_want_more_get_the_same_time_since_the_last_of_them_came(
    lengths: list[list[float]], lanes: int, early: int
) -> None:
    """The others are alone for a while before the last one comes, and it owes and is owed nothing for that.

    The bound does not grow with time. It is that of a fair queue of depth `lanes` (Jin, Chase and Kaur 2004) four
    times: batches under way are charged with what the ones before them took, when the last one comes and later.
    """
    shared, by_party, last = Shared(lanes), dict(enumerate(lengths)), len(lengths) - 1
    for party in range(last):
        shared.ask(party)
    shared.start(0.0, by_party)
    for _ in range(early):
        shared.start(shared.end()[0], by_party)
    shared.ask(last)
    before = dict(shared.served)
    for _ in range(300):
        shared.start(shared.end()[0], by_party)
        had = {party: shared.served[party] - before[party] for party in by_party}
        for one in by_party:
            for other in by_party:
                bound = 4 * (lanes + 1) * (max(lengths[one]) + max(lengths[other]))
                assert abs(had[one] - had[other]) <= bound


@given(LENGTHS, st.integers(1, 50))
def test_who_was_alone_owes_nothing(own: list[float], batches: int) -> None:
    busy = Account()
    for at in range(batches):
        level = busy.spent
        busy = busy.starts().ends(busy.usual, own[at % len(own)])
    late = Account().joins(level)
    assert 0 <= busy.spent - late.spent <= 2 * max(own)


def test_of_equals_the_one_that_waited_longest_is_next() -> None:
    assert next_turn([Account(2.0), Account(1.0, 5.0), Account(1.0)]) == 1
