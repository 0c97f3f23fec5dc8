"""Engines, database threads, migrations, and the classification of database errors."""
