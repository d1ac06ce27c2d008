"""What a process tells about itself: logs, metrics, health. Event names, ids and numbers; never a patient's data."""
