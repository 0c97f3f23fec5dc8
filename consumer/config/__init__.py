"""Settings: their types, how they are read, and what to do about a wrong one."""
