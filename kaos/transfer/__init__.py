"""Moving many bytes: directories into a store and back, and over HTTP."""
