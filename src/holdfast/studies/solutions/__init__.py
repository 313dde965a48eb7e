"""The study of solutions: what an optimiser finds, and not only how fast."""
