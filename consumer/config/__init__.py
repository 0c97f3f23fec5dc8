"""Settings: their types, where they are read, and what to do where one is wrong."""
