"""What a shop says of its items: the catalogue, and how items are filtered and found by it."""
