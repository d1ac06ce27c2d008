"""Local Postgres and RabbitMQ, found or started without Docker and without root; `launcher` is the way in."""
