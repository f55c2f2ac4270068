"""What a system's training would take: the network at its full size without a byte of its memory, and the arithmetic."""
