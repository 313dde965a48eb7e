"""Benches of the transport to language models."""
