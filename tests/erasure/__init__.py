"""Erasure from the request to the signed report, and what is left on the disks."""
