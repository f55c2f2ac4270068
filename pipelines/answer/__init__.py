"""Asks a model every question of a benchmark table."""
