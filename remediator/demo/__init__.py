"""The product in a minute: a simulated fleet, what goes wrong in it, and what remediator makes of that."""
