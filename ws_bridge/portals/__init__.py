"""Staff portals on `/portal`: who gets in, what is said, commands from it. What they are told is `infra.portals`'."""
