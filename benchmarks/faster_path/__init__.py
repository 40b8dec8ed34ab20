"""Whether the server answers by the faster backend, batch size by batch size: measured against every backend alone.

`judge` says what counts and by which rule, `measuring` takes the times, `models` are the models, `report` the tables.
"""
