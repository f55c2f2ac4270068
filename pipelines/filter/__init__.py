"""Filtering: which scored pairs are kept. A query over the scores, done again in seconds at another threshold."""
