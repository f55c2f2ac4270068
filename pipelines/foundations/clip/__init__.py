"""The Chinese-CLIP: brought into the lake from elsewhere, or trained small where no model hub is at hand."""
