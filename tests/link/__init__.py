"""Both ends of the unit link against each other: state machines in memory, snapshots, every frame as documented."""
