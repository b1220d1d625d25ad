"""Versioned state storage: every state that a key ever had, in a bucket or a folder.

- A **version** is one state of one key: a UUID, who made it and when, and the manifest's entry of
  its state tree. It is immutable.
- A **set** says which version each key has at one moment. Sets are numbered; every change (a push
  of one or of a thousand keys, a rollback) makes the next. Versions that were pushed together
  appear in the same set, so a reader of a set never sees half of a refresh.
- The **pointer** holds the newest set. It moves by compare and swap alone, so that of many
  concurrent writers none is lost, and the numbers are the one order of all changes.

What is in a store, below its URL:

    store.json                  the format, written when the store was made
    current.json                the pointer (`bundler.store.records.Current`)
    sets/<number>.json          what each set changed; the newest is in the pointer
    versions/<24 hex>.json      the versions that one push made: their UUIDs begin with its name
    content/<sha256>.<8 hex>    a large file, or many small ones one after the other
    shards/<run>/<n>.json       what one shard of a refresh has pushed, before it is joined
    shards/<run>/joined.json    the set that a run's shards became; a prune removes it a day later
    leases.json, clock          who is refreshing which keys

A push writes contents, then versions, then moves the pointer: a version is visible only when it
is whole. A set is put into ``sets/`` by the writer that replaces it, before it replaces it, so the
history has no gap whatever dies when. Nothing is found by listing but garbage, so a listing that
lags hides nothing.

    objects   what a bucket must offer; `folder` and `remote` offer it
    records   the values above, in canonical JSON
    pointer   reads and moves the pointer, walks the sets
    content   brings the files of states into a store and out of it
    reading, pushing   one version's way out and in
    store     what people do: push, pull, look back, roll back, pin
    prune, checking, copying, lease, shards, importing: each what its name says
    embedded   finds the versioned keys in an artifact at run time
    local, handover   what a push says of this machine; a program's states
"""

from __future__ import annotations

from bundler.store.store import Store, open_store

__all__ = ["Store", "open_store"]
