"""The ten families of the paper's post-training: problems with gold ranges and scored answers."""
