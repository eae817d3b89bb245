"""Benchmarks: one harness, one command each; every number in the documentation names the one that made it."""
