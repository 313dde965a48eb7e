"""Rainbow with discounts of its own for each transition, so that decisions may last: macros, options, skipped frames."""
