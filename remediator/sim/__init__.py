"""A Kubernetes API server in this process, on virtual time: no network, no sleep, one seed.

It stands behind ``ports.Transport``, so that reflector, writer, election and the whole controller
run on it unchanged. What it leaves to a real server is listed in docs/simulator.md.
"""
