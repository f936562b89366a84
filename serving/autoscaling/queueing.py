"""Replicas that keep a latency objective: a queue with one line and several servers (M/M/c).

HAProxy gives each request to the replica with the fewest connections, which comes close to one
line (docs/adr/0032 compares). Formulas: A. O. Allen, Probability, Statistics, and Queueing Theory
(1990), 5.2.3.

Legend: `a` offered load, arrival rate times service time; `c` replicas; `t` objective divided by
service time.
"""

import math

MOST_BUSY = 0.8  # utilization of a replica; waiting times grow steeply beyond it
TAIL = 0.05  # share of requests that may miss the objective


def least_replicas(a: float, t: float, most: int) -> int:
    """Return the fewest replicas that answer 95 % of requests within the objective, at most `most`.

    Each is busy at most at `MOST_BUSY`. Times of service are exponential; where not even an
    idle replica would then keep the objective, they are constant.
    """
    c = max(1, math.ceil(a / MOST_BUSY - 1e-9))
    late = late_exponential if math.exp(-t) <= TAIL else late_constant
    while t > 1 and c < most and late(c, a, t) > TAIL:
        c += 1
    return min(c, most)


def late_exponential(c: int, a: float, t: float) -> float:
    """Return the share of requests that miss the objective; times of service are exponential."""
    wait, left, own = waits(c, a), c - a, math.exp(-t)
    if left <= 0:
        return 1.0
    if abs(left - 1) < 1e-6:
        return own * (1 + wait * t)
    both = (left * own - math.exp(-left * t)) / (left - 1)
    return (1 - wait) * own + wait * both


def late_constant(c: int, a: float, t: float) -> float:
    """Return that share for times of service that are all the same, waiting as if they were not."""
    return waits(c, a) * math.exp(-max(0.0, c - a) * (t - 1))


def waits(c: int, a: float) -> float:
    """Return the share of requests that find all replicas at work (Erlang's C formula)."""
    if a >= c:
        return 1.0
    blocked = 1.0
    for servers in range(1, c + 1):
        blocked = a * blocked / (servers + a * blocked)
    return blocked / (1 - a / c * (1 - blocked))
