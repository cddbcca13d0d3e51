"""Models in vLLM, in this process or behind an address; what runs in a server: serving."""
