"""The procedural world: scenes, captions and questions that stand in for the web on one machine.

A scene is drawn as an image, described and asked about in every language that has a grammar
table in `grammars/`, and served over HTTP with the web's faults.
"""
