"""The pages: each module defines its entries, from the same sources."""
