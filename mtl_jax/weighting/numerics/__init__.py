"""Sums without loss of digits, small quadratic programs, spectra, projections."""
