"""Measures the figures of the design: each a ratio to a bare baseline of the same run, never a timed test."""
