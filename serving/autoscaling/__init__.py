"""Autoscaling: what replicas measure of themselves, and the policy that decides how many there are.

`usage` measures in a replica, `policy` decides, `ray_serve` joins the two in Ray Serve. The same
policy runs in `serving.simulation`. It is pure: metrics, state and time in; replicas, reason and
state out. Predictions on the fast path (`serving.fast_path`) bypass Ray's counters, so each replica
counts them.
"""

from serving.autoscaling.usage import ARRIVED, BUSY, METRICS, ONGOING, SERVED, Busy, Ongoing

__all__ = ["ARRIVED", "BUSY", "METRICS", "ONGOING", "SERVED", "Busy", "Ongoing"]
