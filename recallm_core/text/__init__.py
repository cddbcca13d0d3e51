"""Text as it is compared: folded shadows and places, mapped back to the untouched text."""
