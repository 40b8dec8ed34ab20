"""The server's own interface of policies, under the name by which the world and the baselines have always known it."""

from server.selection.interface import Calibration, Decision, Factory, Failure, Outcome, Policy

__all__ = ["Calibration", "Decision", "Factory", "Failure", "Outcome", "Policy"]
