"""An event, and what a CloudEvent is."""
