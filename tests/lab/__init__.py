"""Real components for tests: installed and set up here, as far as the machine lets us."""
