"""Benches of confidence: trials of language models that change their minds."""
