"""What lives around the API server: scheduler, kubelets, controllers, machines and their exporters.

Each part is told of changes, works them off in an order that the seed decides, and writes through the
server like any other client. Each can be paused.
"""
