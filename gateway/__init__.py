"""The HTTP edge: one more producer and one more reader. It holds no rules of its own."""
