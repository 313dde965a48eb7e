"""The study of sharpness; `study.py` gathers its parts."""
