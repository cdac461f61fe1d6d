"""A model that follows the shop: trained on what is new and some of what is old, its vocabulary growing."""
