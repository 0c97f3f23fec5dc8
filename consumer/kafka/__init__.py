"""What librdkafka's clients have in common, and producers whose records count when all replicas have them."""
