"""Tester-learner for halfspaces: record and claims."""
