"""The small shipped model, made from scratch."""
