"""The classes of functions that the laws leave, and finding one from examples."""
