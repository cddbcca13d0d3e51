"""Models in this process: the engine that batches, its runner, samplers and caches."""
