"""Translation of instruction data in LLaVA's format, turn by turn, with placeholders, letters and numbers kept."""
