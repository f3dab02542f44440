"""A small controller that fences, empties and reboots faulty nodes, right in all that the rules ask for.

It is there to be broken: each of its bugs (``bugs.py``) can be switched on alone, and the harness has to
find it. It shares nothing with remediator but the transport seam. It is no product: it has no metrics and
no limits that a person could set.
"""
