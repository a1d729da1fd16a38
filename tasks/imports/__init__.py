"""Importing files that other systems export: planned first, sent through the queue, reported row by row."""
