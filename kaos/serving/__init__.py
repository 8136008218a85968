"""Endpoints at work: records, the services that they are made of, the gateway before them, their keeper."""
