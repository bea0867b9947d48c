"""VEE: validation, estimation and editing of interval readings, and the loads summed from them.

`vee` runs it all; `rules` holds every rule with its threshold; `estimation` fills what is missing; `registry` knows the
meters; `load` sums readings to load series; `view` shows one meter to a person. What the words mean is in docs/metering.md.
"""
