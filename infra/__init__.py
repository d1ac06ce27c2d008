"""How, and where it runs: broker, log, database, tokens, telemetry, processes, services, the `carespine` command."""
