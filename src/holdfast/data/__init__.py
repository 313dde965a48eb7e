"""Data without a download: generated tasks, and sets that come with the dependencies. Import what you need."""
