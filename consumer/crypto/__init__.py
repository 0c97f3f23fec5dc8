"""Signing keys, and encryption of secrets at rest."""
