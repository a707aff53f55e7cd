"""The command line: commands, and how they show things."""
