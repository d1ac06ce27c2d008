"""What must not happen when processes are killed, servers restart and owners freeze: a test keeps its own ledger."""
