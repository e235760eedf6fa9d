"""The face of the host on the wire: the guard, and thin methods behind it."""
