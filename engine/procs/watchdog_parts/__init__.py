"""Parts of the watchdog's agent: its cells, stops, flatten driver, commands and emergency take-over."""
