"""The tests: `kit` holds what they share; one folder for each package; flows, faults and load across all of them."""
