"""A clinic day on a network of its own: real traffic, real faults, and an account that has to balance at the end."""
