"""The producer: what a program uses that sends commands and waits for their outcome."""
