"""Which memories are not relevant, in tiers, and how many of each tier a query gets."""
