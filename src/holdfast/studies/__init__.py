"""Studies: each file re-tests the claims of one paper. The lab finds them by entry point, group `holdfast.studies`."""
