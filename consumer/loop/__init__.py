"""The base of the worker's loop: its one wait, and the protocol of its parts."""
