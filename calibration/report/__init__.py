"""The report of a quantization: its values, and how they are shown as text and as a page."""
