"""The SXWL cloud's protocol, without any I/O.

`values` holds what users see, `checks` what a job's fields may hold, `dialects` how each server generation spells
things, `calls` what goes out, `answers` how it is read, `progress` when a job is over, `callbacks` how a callback is
read.
"""
