"""Scores what models answered."""
