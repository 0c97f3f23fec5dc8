"""Code that all librdkafka clients share, and producers that wait for all in-sync replicas."""
