"""HTTP: commands in, questions answered, operations. How commands are decided and read models kept is not known here."""
