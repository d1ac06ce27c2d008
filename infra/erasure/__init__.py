"""Erasure after its fact: caches that forget, places that are purged, and the signed report of both."""
