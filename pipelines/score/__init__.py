"""Scoring: the Chinese-CLIP cosine of every downloaded pair. Done once; what is kept is decided elsewhere."""
