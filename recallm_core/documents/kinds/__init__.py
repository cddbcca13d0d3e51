"""Text from the kinds of files that people have, each mapped back to a place in its file."""
