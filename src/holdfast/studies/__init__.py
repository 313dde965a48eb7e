"""Studies: each file re-tests one paper's claims. The lab finds them by entry point, `holdfast.studies`."""
