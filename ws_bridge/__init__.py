"""WebSocket workers: the links of units, their feed down, what they do up. `portals` serves staff."""
