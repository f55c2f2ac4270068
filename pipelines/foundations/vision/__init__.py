"""The visual module before training: a vision encoder with query tokens, and a linear bridge."""
