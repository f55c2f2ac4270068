"""Model cards: README.md as model hubs read it, beside each trained model, and once more with its scores beside the report."""
