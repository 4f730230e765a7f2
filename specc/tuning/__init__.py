"""Find out what pays on this machine: measure engines and recipes, predict, and choose."""
