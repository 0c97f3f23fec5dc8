"""The work of the commands `check`, `subscriptions ping`, `replay` and `listen`."""
