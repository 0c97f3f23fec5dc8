"""What may start now, what comes of an attempt, and where a delivery is kept until it is settled."""
