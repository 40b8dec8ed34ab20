"""Servers under load for a long time, while everything happens that happens in production.

`servers` starts and ends them, `caller` is the load (the published client in processes of its own), every other module
is one part. Nothing here stands in for anything: real processes, ports, signals and packages.
"""
