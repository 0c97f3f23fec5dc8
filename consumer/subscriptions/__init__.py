"""What a subscription is: its row, its options and the rules for them, its secrets."""
