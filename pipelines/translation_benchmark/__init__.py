"""The translator on a published test set such as WMT17: the figure that papers give for their translators."""
