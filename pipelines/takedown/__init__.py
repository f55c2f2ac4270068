"""Takedown: what was demanded to be removed, where it is, and that it is not published again."""
