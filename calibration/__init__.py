"""INT8 quantization: calibration of activation ranges, Q/DQ placement, accuracy and the report."""
