"""Kills and damage: what breaks while a stage runs, and whether the next run mends it.

Every drill takes a `Stage` and a folder to work in, and yields `Trial`s: what was done, and what was lost by it.
"""
