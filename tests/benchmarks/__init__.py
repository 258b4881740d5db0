"""Measurements, run by ``make bench``. Ratios carry over to other machines, seconds do not."""
