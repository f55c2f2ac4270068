"""The translator: a small M2M-100 trained on the world's parallel sentences, or weights from elsewhere."""
