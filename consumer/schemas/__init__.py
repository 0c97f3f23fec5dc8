"""Turns records whose schema is in a schema registry into records in JSON."""
