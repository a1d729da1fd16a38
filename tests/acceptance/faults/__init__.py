"""The fault suite: commands keep coming while something is broken again and again; an oracle judges what came of it.

`make chaos` runs it in full (`__main__`), tests/acceptance/test_faults.py a little of every row. See docs/faults.md.
"""
