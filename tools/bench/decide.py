"""What choosing a worker costs: microseconds of one `decide`, for small and large fleets, idle and busy.

    .venv/bin/python tools/bench/decide.py

The last line is what matters on any machine: how much more a fleet of 1,000 costs than one of 10.
"""

import time

from sie_protocol.status import WorkerStatus
from sie_protocol.target import ModelRef
from sie_router.core.events import WorkerSeen, apply
from sie_router.core.fleet import Fleet, Group
from sie_router.core.index import empty_fleet
from sie_router.core.route import Ask, decide

MODEL = "BAAI/bge-m3"
ROUNDS, PER_ROUND = 7, 3_000
GOLDEN = 0.6180339887  # its multiples spread evenly over [0, 1)


def fleet_of(count: int) -> Fleet:
    """Workers of one group; every other one has the model."""
    state = empty_fleet([Group("l4", "default")])
    for number in range(count):
        models = (MODEL,) if number % 2 else ()
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


def main() -> None:
    """Print the table."""
    costs: dict[int, float] = {}
    for count in (10, 100, 1_000):
        state = fleet_of(count)
        idle, busy = cost_us(state, 0), cost_us(state, 20)
        costs[count] = max(idle, busy)
        print(f"{count:5} workers: {idle:5.1f} us idle, {busy:5.1f} us busy")
    print(f"1,000 workers cost {costs[1_000] / costs[10]:.2f} times as much as 10")


if __name__ == "__main__":
    main()
