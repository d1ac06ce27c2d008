"""HL7 v2 over MLLP: ADT messages of a site's own system become commands, and what the centre tells becomes ADT."""
