"""The study of macro-actions and of the similarity that lets them share credit, one file a part."""
