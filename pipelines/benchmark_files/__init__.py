"""Fetches a benchmark's published files, once, and holds every later fetch to what came the first time."""
