"""Real bridges and agents, with the whole centre or one in the test's hand."""

from __future__ import annotations

from tests.unit_agent.conftest import agent_at, bridge, bridges, centre, installed

__all__ = ["agent_at", "bridge", "bridges", "centre", "installed"]
