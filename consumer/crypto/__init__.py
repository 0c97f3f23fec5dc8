"""Keys that sign, and values that are encrypted at rest."""
