"""Rainbow, with a discount of its own for each transition, so that decisions may last: macros, options, skips."""
