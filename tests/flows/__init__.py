"""Whole ways through the running system, as its users go them."""
