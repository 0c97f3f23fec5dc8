"""Delivers Kafka events to webhook subscribers: signed, retried, committed only after success."""

__version__ = "0.1.0"
