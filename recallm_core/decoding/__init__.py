"""Which token may come next, over plain ints: recall index, constraint, grammar."""
