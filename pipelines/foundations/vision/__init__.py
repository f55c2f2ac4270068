"""The visual module before it meets the language model: a vision encoder with query tokens, and a bridge."""
