"""The study of RAT: recurrence inside chunks, attention across them."""
