"""Data that needs no download: generated tasks, and sets that ship with the dependencies. Import the module you need."""
