"""What a model reads, and by which settings: recipes, conversations, the builder."""
