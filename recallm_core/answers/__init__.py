"""What a model wrote, as values: trace, citations, and whether it is an answer at all."""
