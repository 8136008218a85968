"""What the CLI and the server say to each other, a module per noun."""
