"""RULER by its rules: thirteen tasks at lengths counted by the model's own tokenizer."""
