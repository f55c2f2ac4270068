"""Benchmarks: each compares with a peer in one run, and prints the ratio. `python -m perf.<name>` from the repository."""
