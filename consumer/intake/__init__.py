"""From Kafka to events: poll, decode, track offsets, commit. Records that cannot be decoded are dead-lettered."""
