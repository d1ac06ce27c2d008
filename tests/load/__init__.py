"""Measures the main path beside the sources' own stack and the raw limits of the machine, all in one run."""
