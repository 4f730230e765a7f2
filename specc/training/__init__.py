"""Train heads that draft for a model: `specc train`.

prompts → answers of the model → its states → updates → acceptance on held-out text → a head's directory
"""
