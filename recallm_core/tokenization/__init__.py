"""The seam to a model's tokenizer, and which tokens begin and end at a boundary."""
