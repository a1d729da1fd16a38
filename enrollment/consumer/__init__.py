"""The readers of the event stream: for one process, and for a group of them."""
