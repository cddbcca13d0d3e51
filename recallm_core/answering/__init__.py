"""One question's way: documents to a prompt that fits, tokens to a checked answer."""
