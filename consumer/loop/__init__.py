"""What the worker's loop stands on: its one wait, and what each of its parts answers."""
