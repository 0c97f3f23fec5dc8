"""Stored deliveries: the only writer of their rows and payloads, and of operational events and replays."""
