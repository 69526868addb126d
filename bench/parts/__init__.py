"""What a run measures: a module a part, each with its steps and the sum of what they found."""
