"""Tests of holdfast.confidence."""
