"""Composition root: the only place that builds real clocks, transports and doors."""
