"""Training of what ships, and post-training of others; the command is in ``cli.train``."""
