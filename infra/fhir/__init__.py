"""FHIR R4 in: `ndjson` reads lines, `records` turns resources into commands, `importer` sends them."""
