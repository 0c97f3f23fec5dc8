"""Delivers Kafka events to webhook subscribers: signed, retried, committed only after success."""

__version__ = "1.0.0"
