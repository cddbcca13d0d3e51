"""The shipped evidence reader, made from a sentence encoder."""
