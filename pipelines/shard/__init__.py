"""Training shards: the kept pairs with all their captions, in a fixed random order, images copied once."""
