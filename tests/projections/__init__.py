"""The read side tried from its log to its questions, on a real Postgres."""
