"""The gateway as its callers see it, with real broker, database, handlers and projections; one of each for the run."""
