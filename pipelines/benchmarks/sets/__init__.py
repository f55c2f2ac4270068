"""The benchmarks, one module each; a module declares its `BENCHMARK`."""
