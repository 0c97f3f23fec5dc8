"""Deliveries in memory: when each may start, what its outcome leads to, and where it is kept until it is settled."""
