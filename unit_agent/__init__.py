"""The daemon at a unit: durable local store, link to the centre, connector to the site's system, local HTTP API."""
