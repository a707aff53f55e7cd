"""GTS Engine's protocol, without any I/O.

`values` holds what users see, `calls` what goes out, `answers` how it is read, `progress` when a training is over,
`datafiles` what a valid training file is. The facts are those of GTS Engine 0.1.4.
"""
