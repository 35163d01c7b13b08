"""Automatic linear relaxation for certified bounds: record and claims."""
