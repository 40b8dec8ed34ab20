"""Tests of the frozen world in which backend choice is judged."""
