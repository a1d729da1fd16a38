"""Tests, sorted by cost: unit (pure), integration (real servers), acceptance (real processes), migration."""
