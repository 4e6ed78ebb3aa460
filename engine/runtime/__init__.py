"""What every service shares and no service decides: loop, clock, waiting, heartbeat, log. Knows no trading."""
