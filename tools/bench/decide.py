"""What choosing a worker costs, and what it chooses.

    .venv/bin/python tools/bench/decide.py

Prints the CPU time of one `decide` for small and large fleets, idle and busy; the ratio between 1,000 workers and 10
means the same on any machine. Then, simulated for 100 workers of equal speed, how much work the 25 highest ordinals
get.
"""

import time

from sie_protocol.status import WorkerStatus
from sie_protocol.target import ModelRef
from sie_router.core.events import WorkerSeen, apply
from sie_router.core.fleet import Fleet, Group
from sie_router.core.index import empty_fleet
from sie_router.core.route import Ask, Forward, decide

MODEL = "BAAI/bge-m3"
ROUNDS, PER_ROUND = 7, 3_000
GOLDEN = 0.6180339887  # its multiples spread evenly over [0, 1)
SILVER = 0.4142135624


def fleet_of(count: int, *, every: int = 1) -> Fleet:
    """Workers of one group; one of `every` so many has the model."""
    state = empty_fleet([Group("l4", "default")])
    for number in range(count):
        models = () if number % every else (MODEL,)
        frame = WorkerStatus(ready=True, name=f"worker-l4-{number}", machine_profile="l4", loaded_models=models)
        state = apply(state, WorkerSeen(f"http://10.0.{number >> 8}.{number & 255}:8080", frame), 0.0)
    return state


def cost_us(state: Fleet, per_worker: int) -> float:
    """Microseconds of the fastest round."""
    inflight = dict.fromkeys(state.workers, per_worker)
    ask = Ask(ModelRef(MODEL), "l4")
    draws = [number * GOLDEN % 1 for number in range(PER_ROUND)]
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for each in draws:
            decide(state, ask, inflight, each)
        best = min(best, time.process_time() - start)
    return best / PER_ROUND * 1e6


def share_of_highest(state: Fleet, under_way: int) -> float:
    """The share of requests that the highest quarter gets while about so many are unanswered."""
    ask, inflight = Ask(ModelRef(MODEL), "l4"), dict.fromkeys(state.workers, 0)
    unanswered: list[str] = []
    chosen = 0
    for number in range(PER_ROUND):
        decision = decide(state, ask, inflight, number * GOLDEN % 1)
        assert isinstance(decision, Forward)  # noqa: S101 - tells the type checker
        chosen += decision.worker.ordinal >= len(state.workers) * 3 // 4
        inflight[decision.worker.url] += 1
        unanswered.append(decision.worker.url)
        if len(unanswered) > under_way:
            inflight[unanswered.pop(int(number * SILVER % 1 * len(unanswered)))] -= 1
    return chosen / PER_ROUND


def main() -> None:
    """Print the tables."""
    costs: dict[int, float] = {}
    for count in (10, 100, 1_000):
        state = fleet_of(count, every=2)
        idle, busy = cost_us(state, 0), cost_us(state, 20)
        costs[count] = max(idle, busy)
        print(f"{count:5} workers: {idle:5.1f} us idle, {busy:5.1f} us busy")
    print(f"1,000 workers cost {costs[1_000] / costs[10]:.2f} times as much as 10")
    hundred = fleet_of(100)
    for under_way in (12, 25, 50, 100, 300):
        print(
            f"{under_way / 100:4} under way per worker: {share_of_highest(hundred, under_way):5.1%} to the highest 25"
        )


if __name__ == "__main__":
    main()
