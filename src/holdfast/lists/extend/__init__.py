"""Extend a function to lists of any length."""
