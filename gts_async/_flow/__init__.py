"""Time, and many things at once: clocks, schedules, watches and fan-out. No network."""
