"""The pages: each module names its routes."""
