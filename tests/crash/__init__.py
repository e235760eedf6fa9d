"""Work that never stops on a host that is killed again and again, and what must hold afterwards."""
