"""The loop, and what it does between records: partitions that come and go, the database kept tidy, probes."""
