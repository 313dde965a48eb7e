"""Benches of confidence: change of mind of language models."""
