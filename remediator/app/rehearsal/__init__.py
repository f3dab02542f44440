"""Rehearses playbooks offline: the controller's own passes, in virtual time, on a cluster in memory.

What decides here is what decides on a cluster: the same diagnosis, fleet pass, run pass, ledger and
sweep. Only the doors to the outside are others, and time passes because a story says so.
"""
