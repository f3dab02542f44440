"""How new nodes are let in: the gate, the proof before it opens, the order and the limit. Pure."""
