"""Benches of lists: functions on lists."""
