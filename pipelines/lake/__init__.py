"""The lake: what a table is, when it exists, and how it is found to be unchanged.

A table is a folder with a `_MANIFEST.json`. The manifest is written last and atomically,
so a table either exists whole or not at all.
"""
