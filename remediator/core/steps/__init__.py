"""One module per playbook action: a pure decision each, and nothing else."""
