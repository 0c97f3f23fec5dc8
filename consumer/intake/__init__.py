"""From Kafka to events: poll, decode, track offsets, commit; what cannot be decoded is dead-lettered."""
