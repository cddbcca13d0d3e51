"""The families of generated examples, the data sets, and examples as tokens."""
