"""What EagleRay keeps in storage, as documents that say what they are.

What belongs here: the envelope of a document (`documents`), the right to write one (`leases`), and
writes that only the holder of that right can make visible (`guarded`).
What does not: how bytes are kept (`eagleray.storage`), and what a trial or a model is.
`docs/adr/0017-leases.md` says why it is built so.
"""
