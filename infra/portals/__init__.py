"""Live events for staff: how facts become portal events and reach those who follow a unit. Sockets are others'."""
