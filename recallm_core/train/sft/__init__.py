"""Post-training of a checkpoint in two stages."""
