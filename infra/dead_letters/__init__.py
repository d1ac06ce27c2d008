"""The dead-letter desk's record in Postgres: what is filed, what operators ask for, what was done (the ledger).

`store` files and shows letters, `replays` plans and tracks replays, `ledger` keeps the chain of acts. The gateway asks
and shows; `command_handlers.desk` files and carries out.
"""
