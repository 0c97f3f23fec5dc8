"""Engines, database threads, migrations, and what an error of the database means."""
