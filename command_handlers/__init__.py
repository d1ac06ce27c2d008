"""The write side: consume, load, decide, append, settle; the dead-letter desk; timers."""
