"""HTTP: commands in, questions answered, operations. How commands are decided or answers kept is not known here."""
