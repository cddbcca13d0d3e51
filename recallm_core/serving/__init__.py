"""What runs inside a server: the logits processor of vLLM and the routes of its app."""
