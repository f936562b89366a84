"""Autoscaling tried out offline: a load, replicas that answer it, and the policy that counts them.

`loads` makes arrivals, `replicas` answers them in a discrete-event simulation, `picture` draws what
came of it. The policy is the one of `serving.autoscaling`; the clock is the simulation's.
"""
