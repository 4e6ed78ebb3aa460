"""Order books and per-bar features of every symbol, as compiled kernels over one array of symbol records."""
