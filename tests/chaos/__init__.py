"""Chaos: searches on real processes that are killed and paused, and what must hold at their end.

`plan` draws the events from a seed, `cluster` runs Ray, S3 and drivers and starts again what is
lost, `searched` describes searches and watches them, `checks` says what must hold.
"""
