"""Studio: a page on which images are segmented and the parameters of the dense CRF are tried, and its routes."""
