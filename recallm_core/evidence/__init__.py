"""Where in the passages the evidence for a question stands, and how well it fits."""
