"""Neural networks that hold up at lengths, tasks, data streams and pressures they were not trained for.

Importing the package is free: it loads neither torch nor any other heavy dependency.
"""

__version__ = "0.1.0"
