"""Side-by-side comparisons; each module answers one question: ``python -m benchmarks.NAME``."""
