"""Which subscriptions an event goes to."""
