"""The read side: read models, their runner, rebuild; publishes what became visible."""
