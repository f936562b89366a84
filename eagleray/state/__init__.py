"""The documents that EagleRay keeps in storage: their keys, formats and writers.

`keys` has the layout, `documents` the format, `leases` and `guarded` the right to write. The
documents are in `searches`, `runs`, `models` and `aliases`; `sweep` removes contents that none
refers to. Bytes belong to `eagleray.storage`. Reasons: ADR 17 (leases) and 20 (state).
"""
