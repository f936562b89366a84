"""The public Python API, which `eagleray` re-exports and the command line calls.

What belongs here: what users do with experiments, models and endpoints, and how these look in a
notebook. What does not: printing and exit codes (`eagleray.cli`), and implementations. Only this
package and the command line import `ray_jobs`, `serving` and `k8s`, inside their functions.
"""
