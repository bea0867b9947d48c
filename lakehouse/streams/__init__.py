"""Readings and series that arrive as messages: gathered into files of the landing zone, from where they go on like any other delivery.

Here is what a message means and when a file is whole; `kafka` and `mqtt` take messages from a broker. What the files say is
for `lakehouse.sources`, what is believed of it for cleaning.
"""
