"""From records that a schema registry describes to records in JSON."""
