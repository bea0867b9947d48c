"""Telling people: what an alert is, which of them are news, and the channels they go out by.

What is worth an alert on a site is told by `lakehouse.flow.watch`; nothing here knows tables.
"""
