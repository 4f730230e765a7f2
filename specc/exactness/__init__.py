"""Whether answers are those of the original model: golden outputs, their replay, and perplexity."""
