"""Training: one loop for every stage that trains by DeepSpeed, resumable to the bit."""
