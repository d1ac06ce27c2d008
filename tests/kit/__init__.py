"""What tests share: services once a run, a fresh database and virtual host for each test, waiting with a deadline."""
