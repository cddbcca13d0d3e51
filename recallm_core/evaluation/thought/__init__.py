"""Lost in thought: the same look-up asked directly, and after a stretch of reasoning."""
