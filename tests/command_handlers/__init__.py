"""Handlers as processes: the way of a command, poison, ownership."""
