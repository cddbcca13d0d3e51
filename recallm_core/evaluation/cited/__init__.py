"""``recallm eval cited``: what a model does with each evidence policy, and without the library."""
