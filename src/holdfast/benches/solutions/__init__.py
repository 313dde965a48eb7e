"""Bench of optimisers with a chosen bias: power-propagation beside its inner optimiser, second order beside AdamW."""
