"""The command line `unit-agent`: what one types at a site to enrol an agent, run it, look at it and mend it."""
