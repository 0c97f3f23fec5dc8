"""Subscriptions: their rows, their options and the rules for these, their secrets."""
