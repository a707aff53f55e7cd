"""GTS Engine's protocol, without any I/O.

`values` holds what users see, `calls` what goes out, `answers` and `results` how it is read, `progress` when a training
is over, `samples` what is sent to predict, `datafiles` what a valid training file is (its rows in `rows`, its lines in
`jsonlines`). The facts are those of GTS Engine 0.1.4.
"""
