"""All that EagleRay keeps in storage: its keys, and its documents, which say what they are.

What belongs here: the layout (`keys`), what a document is (`documents`), the right to write one
(`leases`, `guarded`), and the documents themselves: `searches`, `runs`, `models` with `aliases` and
`events`. `sweep` removes contents that none of them refers to.
What does not: how bytes are kept (`eagleray.storage`), and what a trial, a bundle or a schema is.
`docs/adr/0017-leases.md` and `docs/adr/0020-state.md` say why it is built so.
"""
