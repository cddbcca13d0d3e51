"""The families of generated lessons, the data sets, and lessons as tokens."""
