"""WebSocket workers: the links of units, their feed down, what they do up. Staff portals come to live here too."""
