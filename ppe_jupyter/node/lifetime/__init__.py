"""How long the cluster lives: who works on it, its limits, the timer of each node, and what follows its end."""
