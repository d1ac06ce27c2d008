"""The `carespine` command: one module for each subject; `app` puts them together."""
