"""A function over many values on Python ranks: who gets which task, and the file that has what they answered."""
