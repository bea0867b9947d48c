"""VEE: validation, estimation and editing of interval readings, and the loads summed from them.

`vee` runs it all; `screen` finds the sound days that need no second look; `rules` holds every rule with its threshold, `rows` and
`values` those that need more than one row, `clocks` the one for whole files; `estimation` fills what is missing, `registers` holds it
against register reads; `registry` knows the meters; `load` sums readings to load series. What the words mean is in docs/metering.md.
How one meter is shown to a person is in `lakehouse/flow/vee.py`.
"""
