"""Sums without loss of digits, small equations and quadratic programs, spectra, projections."""
