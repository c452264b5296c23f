"""Benchmarks that a user can run: figures side by side in one run, never a timed test."""
