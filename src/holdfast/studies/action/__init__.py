"""The study of action: one recurrent policy for many domains."""
