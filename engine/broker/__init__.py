"""The trading connection: library edge, compiled decoding, message governor, order book-keeping, synchronisation."""
