"""The systems of the papers as recipes: what they are made of, on what and how they are trained, and what that takes."""
