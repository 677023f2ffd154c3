"""Measurements; `make bench` runs all of them and writes docs/benchmarks.md."""
