"""Replicas that an objective needs, by several estimates, beside those that the simulation needs.

    python benchmarks/queueing.py [--requests 10000]

The truth is the fewest replicas of the simulation whose p95 is in the objective. `one line` is
what the policy uses (`serving.autoscaling.queueing`), `own lines` has a queue for each replica, and
`0.8` looks at utilization alone.

Legend: `a` offered load, arrival rate times service time; `t` objective divided by service time.
"""

import argparse
import itertools
import json
import math

import numpy as np

from serving.autoscaling import queueing
from serving.simulation import loads, replicas

MOST = 100


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    count = parser.parse_args().requests
    cases = itertools.product((0.0, 0.5, 1.0), (3.5, 5.0, 10.0), (0.5, 2.0, 6.0, 12.0))
    found = [
        (needed, estimates(a, t))
        for variation, t, a in cases
        if (needed := truth(a, t, variation, count))
    ]
    print(
        f"{len(found)} cases with an answer\n{'estimate':12}{'too few':>9}{'too many':>9}{'sum':>7}"
    )
    sums = {}
    for name in found[0][1]:
        pairs = [(needed, said[name]) for needed, said in found]
        few, many = (sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))
        sums[name] = sum(b for _, b in pairs) / sum(a for a, _ in pairs)
        print(f"{name:12}{few:9}{many:9}{sums[name]:7.2f}")
    ours, peer = sums["one line"], sums["own lines"]
    said = "replicas by the estimate for each one that is needed, beside a queue for each replica"
    numbers = {"ours": round(ours, 2), "peer": round(peer, 2), "ratio": round(ours / peer, 2)}
    print(json.dumps({"claim": said, **numbers, "target": 1.2, "holds": ours <= 1.2}))


def truth(a: float, t: float, variation: float, count: int) -> int | None:
    """Return the fewest replicas of the simulation that keep it; None where many do not."""
    kind = replicas.Kind(service_s=0.01, variation=variation)
    sent = loads.arrivals(np.full(math.ceil(count * kind.service_s / a), a / kind.service_s), 1)
    for number in range(math.floor(a) + 1, math.ceil(4 * a) + 4):
        outcome = replicas.simulate(sent, kind, lambda _, n, __: (n, ""), replicas=number)
        if outcome.percentile(0.95) <= t * kind.service_s:
            return number
    return None


def estimates(a: float, t: float) -> dict[str, int]:
    busy = min(queueing.MOST_BUSY, 1 - math.log(20) / t)  # M/M/1: p95 is ln(20) / (1 - busy)
    alone = max(1, math.ceil(a / queueing.MOST_BUSY - 1e-9))
    return {
        "one line": queueing.least_replicas(a, t, MOST),
        "own lines": math.ceil(a / busy),
        "0.8": alone,
    }


if __name__ == "__main__":
    main()
