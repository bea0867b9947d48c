"""Readers of landed formats, one module a format; `base` says what a format is and finds them."""
