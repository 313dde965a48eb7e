"""Environments and policies: experts and their data, evaluation; import the module you need."""
