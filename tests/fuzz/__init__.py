"""Mutated bundles, each tried in a process of its own."""
