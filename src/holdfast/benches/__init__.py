"""Speed and memory, side by side: one bench a file, each with its peers in the same run."""
