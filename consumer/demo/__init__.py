"""`make demo`: the worker between an embedded Kafka and database, and receivers of which some fail."""
