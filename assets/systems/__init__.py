"""The systems of the papers as assets: everything from their crawls to their scores, in one job."""
