"""Real backends for the emulator: training with scikit-learn, jobs as subprocesses, both served on loopback."""
