"""Benches of macro-actions: Rainbow beside a plain twin, and what the similarity penalty adds."""
