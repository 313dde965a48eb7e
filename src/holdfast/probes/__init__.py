"""Probes: each measures, on the user's own model, the failure that a paper describes. One probe a file."""
