"""CEL expressions: filters and projections of subscriptions, and the fields of mappings."""
