"""Choice of the form of each atrous convolution by measurement on the machine at hand."""
