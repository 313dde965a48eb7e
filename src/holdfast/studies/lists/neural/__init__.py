"""Part `neural` of the study of list functions."""
