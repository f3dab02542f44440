"""Logs, metrics and the port that shows them. The only importer of ``prometheus_client``."""
