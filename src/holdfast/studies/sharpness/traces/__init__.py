"""Part `traces` of the study of sharpness."""
