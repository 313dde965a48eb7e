"""The study of lists; `study.py` gathers its parts."""
