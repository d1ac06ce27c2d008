"""The unit link under load."""
