"""The worker: its loop, changes of the assignment, upkeep of the database, and the health port."""
