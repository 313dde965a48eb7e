"""Whole networks with two users or a public name; import the module you need."""
