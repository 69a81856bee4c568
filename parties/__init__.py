"""Who takes part, what each allows, where rows live, how bytes move.

`home` is a party's folder and its party.yaml, `policy` what it allows, `store` its datasets and `table` the columns
that come out of them, `labels` what may be learnt; `state` is what the engine remembers there, `ledger` what left,
`checkpoint` how arrays are kept on disk, `files` how anything is. `errors` (whose words are in `catalogue`) and
`events` (with `released`, for statistics) are all that may be said outside of a vault.

Parties on different machines: `identity` is the key that one signs with, `signature` how others verify, `certificate`
what TLS shows. The `roster` says who is in a consortium, by which keys; `consortium` is what a home has accepted of it.
`starts` judges who has signed a job, `approvals` keeps those that wait for a person, `pause` stops them all. `reach` is
a vault's way to its peers, and `network` moves the bytes.

This package has no names of its own: its modules are imported one by one (``from ..parties.store import Store``), since
`errors`, `events` and `policy` are needed by processes that must start quickly and do without DuckDB.
"""

__all__: list[str] = []
