"""The public Python API, which the command line is a skin over; `eagleray` itself leads here.

What belongs here: what a person can do with experiments, models and endpoints, and how it looks in
a notebook. What does not: printing and exit codes (`eagleray.cli`), and how anything is done. This
package and the command line alone import `ray_jobs`, `serving` and `k8s`, inside their functions.
"""
