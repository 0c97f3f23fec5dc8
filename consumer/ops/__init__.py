"""What commands do beside subscriptions and deliveries: check, ping, replay, a receiver to look at."""
