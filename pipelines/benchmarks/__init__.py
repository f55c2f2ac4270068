"""Benchmarks: loaders, extraction of answers from what a model said, language detection, statistics.

Nothing here runs a model: `pipelines.answer` asks, `pipelines.score_answers` scores.
"""
