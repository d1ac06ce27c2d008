"""How, and where it runs: broker, event store, database, tokens, telemetry, processes, local services, the `carespine` command."""
