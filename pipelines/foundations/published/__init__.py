"""A system's parts before training: published weights brought into the lake, or random ones of the same shape."""
