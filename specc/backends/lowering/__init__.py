"""Passes that depend on the target: from specc's operators to those that a backend can translate.

Only the backend that needs a lowering imports its file. The files share `emit` and `masks`, and nothing else.
"""
