"""Lineage for people: each format is a module of its own, made of a `kaos.graph.Graph`."""
