"""Certified bounds of any network by linear relaxation: capture, operators, propagation, bounds."""
