"""The command line of kaos."""
