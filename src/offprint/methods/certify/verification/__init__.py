"""Deciding properties of networks: attack, bounds, and branch and bound that leaves no case open."""
