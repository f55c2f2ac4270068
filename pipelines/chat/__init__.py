"""Talking with a model of this project about images: on a terminal, in a script, or on a web page."""
