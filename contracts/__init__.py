"""The words: commands, events, refusals, envelope, frames, identity.

Nothing here does I/O, reads a clock or draws a random number.
"""
