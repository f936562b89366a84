"""Tasks, column kinds, models, losses and metrics, in numpy and torch; no I/O.

What belongs here: one file for each task and each column kind, and what they share.
What does not: files and tables (`eagleray.tabular`), storage, and Ray.
"""
