"""The pages: each module gives its entries, from the same sources."""
