"""Settings: their types, how they are read, and the messages about wrong ones."""
