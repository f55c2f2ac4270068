"""The download stage: URL lists in, images with captions out, in webdataset tars.

img2dataset downloads; around it stand a guard (what may be fetched, and how much of it), a
reader that streams, a writer that is deterministic, and a pool that survives its workers.
"""
