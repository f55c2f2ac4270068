"""The instruction mix: instructions in the pivot language blended with a share of their translations."""
