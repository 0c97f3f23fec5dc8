"""Events and their CloudEvents attributes."""
