"""Deliveries that left memory: the only writer of their rows, their payloads, operational events and replays."""
