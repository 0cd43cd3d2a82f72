"""Parameters of the dense CRF that fit a network and its data, searched on images with masks."""
