"""Matches events to subscriptions."""
