"""What runs on a laptop: packing an experiment, submitting it to a cluster, and following it.

What belongs here: packages, attempts, and the backends that need no library but Ray's own client.
What does not: what runs on Ray (`ray_jobs`) and what talks to the Kubernetes API (`k8s`).
"""
