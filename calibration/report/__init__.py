"""Report of a quantization: its values, as text, and as an HTML page."""
