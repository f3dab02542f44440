"""What a GPU fleet looks like, as values: machines, Nodes, exporter pages, layouts and workloads.

Pure: the test bed puts them on a real control plane, the simulator into memory.
"""
