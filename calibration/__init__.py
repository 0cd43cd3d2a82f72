"""Fits to data: INT8 with its ranges, placement and report, and in `tune` the dense CRF."""
