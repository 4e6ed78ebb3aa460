"""Names and small types of the field: instruments, sides, order states, units. No I/O, no clock."""
