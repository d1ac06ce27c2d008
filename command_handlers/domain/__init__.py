"""The rules: one module per aggregate, all pure. What follows from what is in `processes`."""
