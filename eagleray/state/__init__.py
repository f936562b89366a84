"""All that EagleRay keeps in storage: its keys, and its documents, which say what they are.

The layout is in `keys`, what a document is in `documents`, the right to write one in `leases` and
`guarded`; the documents themselves are in `searches`, `runs`, `models` and `aliases`. `sweep`
removes contents that none of them refers to. How bytes are kept belongs to `eagleray.storage`.
`docs/adr/0017-leases.md` and `docs/adr/0020-state.md` say why it is built so.
"""
