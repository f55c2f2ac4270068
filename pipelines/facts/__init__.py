"""Facts about pairs: what a caption is, what its image looks like, what it repeats. The filter decides by them."""
